// cepe data info, cepe data verify: what a corpus holds, and whether it is as it was written.
#include <cstdio>

#include "base/json.h"
#include "base/printable.h"
#include "cli/commands.h"
#include "cli/standard_streams.h"
#include "data/corpus_index.h"
#include "data/corpus_statistics.h"

namespace cepe::cli {
namespace {

using base::OrderedJson;

struct CorpusOptions {
  std::string folder;
  bool json = false;
};

OrderedJson describe(const data::TokenCorpus& corpus, const std::string& folder) {
  const data::CorpusIndex& index = corpus.index();
  const data::CorpusStatistics statistics = data::corpus_statistics(corpus.documents());
  OrderedJson json = {{"folder", folder},
                      {"documents", index.documents},
                      {"tokens", index.tokens},
                      {"bytes", index.tokens * index.bytes_per_id},
                      {"shards", index.shards.size()},
                      {"vocabulary", index.vocabulary},
                      {"model", index.model},
                      {"tokenizer", index.tokenizer},
                      {"domains", OrderedJson::array()},
                      {"lengths", OrderedJson::array()}};
  for (const auto& [name, domain] : statistics.domains) {
    json["domains"].push_back(
        {{"domain", name}, {"documents", domain.documents}, {"tokens", domain.tokens}, {"longest", domain.longest}});
  }
  for (const data::LengthStatistics& length : statistics.lengths) {
    json["lengths"].push_back({{"from", length.least},
                               {"below", 2 * length.least},
                               {"documents", length.documents},
                               {"tokens", length.tokens}});
  }
  return json;
}

std::string count_row(const std::string& name, const OrderedJson& counts) {
  char line[160];
  std::snprintf(line, sizeof line, "  %-24.80s %14lld %18lld", base::printable(name).c_str(),
                counts["documents"].get<long long>(), counts["tokens"].get<long long>());
  return line;
}

std::string table(const OrderedJson& json) {
  std::string text = json["folder"].get<std::string>() + ": " + json["documents"].dump() + " documents, " +
                     json["tokens"].dump() + " tokens of a vocabulary of " + json["vocabulary"].dump() + " (" +
                     base::printable(json["model"].get<std::string>()) + "), " + json["shards"].dump() + " shards\n\n";
  text += "  domain                        documents             tokens            longest\n";
  for (const OrderedJson& domain : json["domains"]) {
    char longest[32];
    std::snprintf(longest, sizeof longest, " %18lld\n", domain["longest"].get<long long>());
    text += count_row(domain["domain"].get<std::string>(), domain) + longest;
  }
  text += "\n  tokens of a document          documents             tokens\n";
  for (const OrderedJson& length : json["lengths"])
    text += count_row(length["from"].dump() + " to below " + length["below"].dump(), length) + "\n";
  return text;
}

void corpus_info(const CorpusOptions& options) {
  const OrderedJson json = describe(data::TokenCorpus::open(options.folder), options.folder);
  write_output(options.json ? json.dump(1, ' ', false, OrderedJson::error_handler_t::replace) + "\n" : table(json));
}

void verify_corpus(const CorpusOptions& options) {
  const data::TokenCorpus corpus = data::TokenCorpus::open(options.folder);
  corpus.verify();
  const OrderedJson json = {{"folder", options.folder},
                            {"documents", corpus.index().documents},
                            {"tokens", corpus.tokens()},
                            {"intact", true}};
  const std::string text = options.folder + ": " + std::to_string(corpus.index().documents) + " documents, " +
                           std::to_string(corpus.tokens()) + " tokens, all checksums agree\n";
  write_output(options.json ? json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace) + "\n" : text);
}

void add_options(CLI::App& command, CorpusOptions& options) {
  command.add_option("FOLDER", options.folder, "a corpus, made by data build")->check(not_empty())->required();
  command.add_flag("--json", options.json, "one JSON object instead of text");
}

}  // namespace

void add_data_info(CLI::App& group, CommonOptions& common) {
  const auto options = std::make_shared<CorpusOptions>();
  CLI::App* command = add_command(group, "info", "Documents and tokens by domain, and how long documents are",
                                  "cepe data info books --json", common, [options] { corpus_info(*options); });
  add_options(*command, *options);
}

void add_data_verify(CLI::App& group, CommonOptions& common) {
  const auto options = std::make_shared<CorpusOptions>();
  CLI::App* command = add_command(group, "verify", "Read the whole corpus and compare its checksums",
                                  "cepe data verify books", common, [options] { verify_corpus(*options); });
  add_options(*command, *options);
}

}  // namespace cepe::cli
