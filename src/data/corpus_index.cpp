#include "data/corpus_index.h"

#include <algorithm>
#include <cstdio>
#include <limits>

#include "base/error.h"

namespace cepe::data {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;

[[noreturn]] void fail_at(const std::string& where, const std::string& what) {
  throw Error(ErrorCode::corrupt, where + ": " + what);
}

int64_t count_in(const Json& object, const char* field, const std::string& where) {
  const int64_t count = base::json_integer(object, field, where);
  if (count < 0)
    fail_at(where, std::string("field '") + field + "' must not be negative, found " + std::to_string(count));
  return count;
}

std::string digest_in(const Json& object, const char* field, const std::string& where) {
  std::string digest = base::json_string(object, field, where);
  const bool fits = digest.size() == 64 && std::all_of(digest.begin(), digest.end(), [](char c) {
                      return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
                    });
  if (!fits) fail_at(where, std::string("field '") + field + "' must be a SHA-256 of 64 hexadecimal digits");
  return digest;
}

int64_t sum(int64_t so_far, int64_t more, const std::string& where) {
  int64_t total = 0;
  if (__builtin_add_overflow(so_far, more, &total)) fail_at(where, "the tokens add up to more than 2^63 - 1");
  return total;
}

std::vector<CorpusShard> shards_in(const Json& json, const std::string& where) {
  if (!base::json_has(json, "shards") || !json["shards"].is_array()) fail_at(where, "field 'shards' must be a list");
  if (json["shards"].size() > most_corpus_shards)
    fail_at(where, "more than " + std::to_string(most_corpus_shards) + " shards");
  std::vector<CorpusShard> shards;
  for (const Json& shard : json["shards"]) {
    const std::string here = where + ": shards[" + std::to_string(shards.size()) + "]";
    shards.push_back({count_in(shard, "tokens", here), digest_in(shard, "sha256", here)});
  }
  return shards;
}

CorpusDocument parse_document(std::string_view line, const std::string& where) {
  const Json json = base::parse_json(line, where);
  CorpusDocument document;
  document.id = base::json_string(json, "id", where);
  document.source = base::json_string(json, "source", where);
  document.domain = base::json_string(json, "domain", where);
  document.tokens = count_in(json, "tokens", where);
  return document;
}

}  // namespace

std::string shard_name(size_t shard) {
  char name[32];
  std::snprintf(name, sizeof name, "tokens-%05zu.bin", shard);
  return name;
}

CorpusIndex parse_corpus_index(std::string_view text, const std::string& where) {
  const Json json = base::parse_json(text, where);
  if (!json.is_object()) fail_at(where, "expected an object");
  const int64_t version = base::json_integer(json, "version", where);
  if (version != corpus_version) {
    throw Error(ErrorCode::unsupported, where + ": version " + std::to_string(version) +
                                            " of the corpus format; read is " + std::to_string(corpus_version));
  }
  CorpusIndex index;
  index.vocabulary = count_in(json, "vocabulary", where);
  if (index.vocabulary < 1 || index.vocabulary > std::numeric_limits<text::Token>::max())
    fail_at(where, "field 'vocabulary' must be from 1 to 2^31 - 1, found " + std::to_string(index.vocabulary));
  index.bytes_per_id = base::json_integer(json, "bytes_per_id", where);
  if (index.bytes_per_id != 4 && (index.bytes_per_id != 2 || index.vocabulary > 65536))
    fail_at(where, "field 'bytes_per_id' must be 4, or 2 for a vocabulary of at most 65536");
  index.tokenizer = base::json_string(json, "tokenizer", where);
  index.model = base::json_string(json, "model", where, "");
  index.shards = shards_in(json, where);
  index.documents = count_in(json, "documents", where);
  index.tokens = count_in(json, "tokens", where);
  index.documents_sha256 = digest_in(json, "documents_sha256", where);
  if (base::json_has(json, "made_from")) index.made_from = json["made_from"];
  int64_t total = 0;
  for (const CorpusShard& shard : index.shards) total = sum(total, shard.tokens, where);
  if (total != index.tokens)
    fail_at(where, "the shards hold " + std::to_string(total) + " tokens, field 'tokens' says " +
                       std::to_string(index.tokens));
  return index;
}

std::string print_corpus_index(const CorpusIndex& index) {
  base::OrderedJson shards = base::OrderedJson::array();
  for (const CorpusShard& shard : index.shards) shards.push_back({{"tokens", shard.tokens}, {"sha256", shard.sha256}});
  const base::OrderedJson json = {{"version", corpus_version},
                                  {"vocabulary", index.vocabulary},
                                  {"bytes_per_id", index.bytes_per_id},
                                  {"tokenizer", index.tokenizer},
                                  {"model", index.model},
                                  {"documents", index.documents},
                                  {"tokens", index.tokens},
                                  {"documents_sha256", index.documents_sha256},
                                  {"shards", shards},
                                  {"made_from", index.made_from}};
  return json.dump(1, ' ', false, base::OrderedJson::error_handler_t::replace) + "\n";
}

std::vector<CorpusDocument> parse_corpus_documents(std::string_view text, const std::string& where) {
  std::vector<CorpusDocument> documents;
  int64_t first = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string here = where + ", line " + std::to_string(documents.size() + 1);
    if (end == std::string_view::npos) fail_at(here, "is cut short");
    documents.push_back(parse_document(text.substr(0, end), here));
    documents.back().first = first;
    first = sum(first, documents.back().tokens, here);
    text.remove_prefix(end + 1);
  }
  return documents;
}

std::string print_corpus_document(const CorpusDocument& document) {
  const base::OrderedJson json = {
      {"id", document.id}, {"source", document.source}, {"domain", document.domain}, {"tokens", document.tokens}};
  return json.dump(-1, ' ', false, base::OrderedJson::error_handler_t::replace) + "\n";
}

}  // namespace cepe::data
