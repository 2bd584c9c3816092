#include "data/corpus_import.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <optional>

#include "base/interrupt.h"
#include "base/log.h"
#include "base/progress.h"
#include "data/corpus_writer.h"
#include "data/tokenizer_fingerprint.h"

namespace cepe::data {
namespace {

using base::Json;
using base::Path;

struct Item {
  std::string domain;  // "": not said
  std::vector<text::Token> ids;
};
using NextItem = std::function<std::optional<Item>()>;

NextItem items_of_mds(const Path& folder, int64_t vocabulary) {
  const auto reader = std::make_shared<PublishedSamples>(folder, vocabulary);
  return [reader]() -> std::optional<Item> {
    auto sample = reader->next();
    if (!sample) return std::nullopt;
    Item item{std::move(sample->domain), std::move(sample->previous)};
    item.ids.insert(item.ids.end(), sample->tokens.begin(), sample->tokens.end());
    return item;
  };
}

NextItem items_of_npy(const Path& file, int64_t vocabulary) {
  const auto reader = std::make_shared<PublishedDocuments>(file, vocabulary);
  return [reader]() -> std::optional<Item> {
    auto ids = reader->next();
    if (!ids) return std::nullopt;
    return Item{"", std::move(*ids)};
  };
}

// What is read of MDS folders.
std::vector<Path> files_of(const std::vector<Path>& folders) {
  std::vector<Path> files;
  for (const Path& folder : folders) {
    const Path index = folder / formats::mds_index_name;
    files.push_back(index);
    const std::string text = base::read_file(index, formats::most_mds_index_bytes);
    for (const formats::MdsShard& shard : formats::parse_mds_index(text, index.string())) {
      const Path plain = folder / shard.plain.name;
      const bool unpacked = !shard.packed || std::filesystem::exists(plain);
      files.push_back(unpacked ? plain : folder / shard.packed->name);
    }
  }
  return files;
}

class Import {
 public:
  Import(const ImportSources& sources, int64_t vocabulary, CorpusWriter& writer, const CorpusOptions& options)
      : sources_(sources),
        vocabulary_(vocabulary),
        writer_(writer),
        options_(options),
        progress_("importing", 0, "tokens") {
    if (writer.position().is_null()) return;
    source_ = static_cast<size_t>(std::max<int64_t>(0, base::json_integer(writer.position(), "source", "build.json")));
    items_ = base::json_integer(writer.position(), "items", "build.json");
  }

  void run() {
    try {
      const size_t count = sources_.mds.size() + sources_.npy.size();
      for (int64_t passed = items_; source_ < count; ++source_, items_ = passed = 0) run_source(passed);
    } catch (...) {
      writer_.save(position());
      throw;
    }
    writer_.save(position());
  }

  int64_t empty() const { return empty_; }

 private:
  Json position() const { return {{"source", source_}, {"items", items_}}; }

  // After the first `passed` items, which are written already.
  void run_source(int64_t passed) {
    const bool mds = source_ < sources_.mds.size();
    const Path& path = mds ? sources_.mds[source_] : sources_.npy[source_ - sources_.mds.size()];
    const NextItem next = mds ? items_of_mds(path, vocabulary_) : items_of_npy(path, vocabulary_);
    for (int64_t i = 0; auto item = next(); ++i) {
      base::throw_if_interrupted();
      if (i >= passed) write(path, std::move(*item));
    }
  }

  void write(const Path& path, Item item) {
    if (options_.max_document_tokens > 0)
      item.ids.resize(std::min(item.ids.size(), static_cast<size_t>(options_.max_document_tokens)));
    if (item.ids.empty()) {
      ++empty_;
    } else {
      const std::string named = item.domain.empty() ? domain_of_file(path) : item.domain;
      writer_.append({path.string() + ":" + std::to_string(items_), path.string(),
                      options_.domain.empty() ? named : options_.domain},
                     item.ids);
      progress_.advance(static_cast<int64_t>(item.ids.size()));
    }
    ++items_;
    const auto now = std::chrono::steady_clock::now();
    if (std::chrono::duration<double>(now - saved_at_).count() < options_.save_seconds) return;
    writer_.save(position());
    saved_at_ = std::chrono::steady_clock::now();
  }

  const ImportSources& sources_;
  int64_t vocabulary_;
  CorpusWriter& writer_;
  const CorpusOptions& options_;
  base::Progress progress_;
  size_t source_ = 0;  // being read; MDS folders first
  int64_t items_ = 0;  // of it that are written
  int64_t empty_ = 0;
  std::chrono::steady_clock::time_point saved_at_ = std::chrono::steady_clock::now();
};

}  // namespace

CorpusReport import_corpus(const ImportSources& sources, const text::Tokenizer& tokenizer, const Path& folder,
                           const CorpusOptions& options) {
  CorpusWriterSettings settings;
  settings.vocabulary = tokenizer.vocabulary_size();
  settings.tokenizer = tokenizer_fingerprint(tokenizer);
  settings.model = options.model;
  settings.shard_tokens = options.shard_tokens;
  settings.made_from = {{"mds", inputs_of(files_of(sources.mds))},
                        {"npy", inputs_of(sources.npy)},
                        {"domain", options.domain},
                        {"max_document_tokens", options.max_document_tokens}};
  CorpusWriter writer(folder, settings);
  CorpusReport report;
  report.found = writer.documents();
  if (!writer.complete()) {
    if (report.found > 0) base::notice("going on after " + std::to_string(report.found) + " documents");
    Import import(sources, settings.vocabulary, writer, options);
    import.run();
    report.empty = import.empty();
  }
  report.documents = writer.documents();
  report.tokens = writer.tokens();
  expect_documents(report, folder, "the " + std::to_string(sources.mds.size() + sources.npy.size()) + " sources");
  writer.finish();
  return report;
}

}  // namespace cepe::data
