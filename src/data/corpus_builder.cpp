#include "data/corpus_builder.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <optional>

#include "base/error.h"
#include "base/hash.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/progress.h"
#include "data/corpus_writer.h"
#include "data/documents.h"
#include "data/tokenizer_fingerprint.h"
#include "data/tokenizer_pool.h"

namespace cepe::data {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;
using base::Path;

constexpr size_t most_bytes_in_flight = size_t{64} << 20;
constexpr size_t most_texts_in_flight = 4096;
constexpr size_t most_files_named = 4096;
constexpr size_t most_domain_bytes = 256;

// Where reading stands after a document.
struct ReadingPlace {
  size_t file = 0;
  int64_t documents = 0;  // read of this file
  int64_t skipped = 0;    // bad lines of earlier files
};

// Size, and a digest of both ends: as good as the content, without reading it all once more.
std::string identity_of(const Path& path) {
  constexpr size_t end_bytes = size_t{64} << 10;
  const base::MappedFile file(path);
  const auto bytes = file.bytes();
  base::Sha256 hash;
  hash.update(bytes.first(std::min(bytes.size(), end_bytes)));
  hash.update(bytes.last(std::min(bytes.size(), end_bytes)));
  return path.string() + ", " + std::to_string(bytes.size()) + " bytes, " + base::to_hex(hash.finish()).substr(0, 16);
}

CorpusWriterSettings writer_settings(const std::vector<Path>& files, const text::Tokenizer& tokenizer,
                                     const CorpusOptions& options) {
  CorpusWriterSettings settings;
  settings.vocabulary = tokenizer.vocabulary_size();
  settings.tokenizer = tokenizer_fingerprint(tokenizer);
  settings.model = options.model;
  settings.shard_tokens = options.shard_tokens;
  settings.made_from = {{"inputs", inputs_of(files)},
                        {"domain", options.domain},
                        {"bos", options.bos},
                        {"eos", options.eos},
                        {"max_document_tokens", options.max_document_tokens}};
  return settings;
}

// The documents of all files, each with the place behind it.
class DocumentStream {
 public:
  DocumentStream(const std::vector<Path>& files, int64_t max_skipped, const ReadingPlace& start)
      : files_(files), max_skipped_(max_skipped), place_{start.file, 0, start.skipped} {
    while (place_.file == start.file && place_.documents < start.documents && next()) {
    }
  }

  std::optional<Document> next() {
    while (place_.file < files_.size()) {
      if (!reader_)
        reader_.emplace(std::vector<Path>{files_[place_.file]},
                        DocumentOptions{.max_skipped = max_skipped_ - place_.skipped});
      if (auto document = reader_->next()) {
        ++place_.documents;
        return document;
      }
      place_ = {place_.file + 1, 0, skipped()};
      reader_.reset();
    }
    return std::nullopt;
  }

  const ReadingPlace& place() const { return place_; }
  int64_t skipped() const { return place_.skipped + (reader_ ? reader_->skipped() : 0); }

 private:
  const std::vector<Path>& files_;
  int64_t max_skipped_;
  ReadingPlace place_;
  std::optional<DocumentReader> reader_;
};

class Build {
 public:
  Build(const std::vector<Path>& files, const text::Tokenizer& tokenizer, CorpusWriter& writer,
        const CorpusOptions& options)
      : options_(options),
        writer_(writer),
        bos_(options.bos ? special(tokenizer.bos, "BOS") : std::nullopt),
        eos_(options.eos ? special(tokenizer.eos, "EOS") : std::nullopt),
        documents_(files, options.max_skipped, start()),
        pool_(tokenizer, thread_count(options.threads)),
        progress_("tokenising", 0, "tokens") {}

  void run() {
    try {
      while (submit_one()) {
        while (write_one(pool_.texts() >= most_texts_in_flight || pool_.bytes() >= most_bytes_in_flight)) {
        }
      }
      while (write_one(true)) {
      }
    } catch (...) {
      writer_.save(position());
      throw;
    }
    writer_.save(position());
    if (bad_input_) std::rethrow_exception(bad_input_);
  }

  int64_t skipped() const { return documents_.skipped(); }
  int64_t empty() const { return empty_; }

 private:
  struct Waiting {
    CorpusDocument document;
    ReadingPlace after;
  };

  static std::optional<text::Token> special(std::optional<text::Token> token, const char* name) {
    if (!token)
      throw Error(ErrorCode::invalid_argument,
                  std::string("the tokenizer has no ") + name + " token to put around documents");
    return token;
  }

  static int thread_count(int wanted) {
    return wanted > 0 ? wanted : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  }

  // Where the writer's last save stands.
  ReadingPlace start() {
    const Json& saved = writer_.position();
    if (saved.is_null()) return {};
    const std::string where = "build.json";
    empty_ = base::json_integer(saved, "empty", where);
    written_ = {static_cast<size_t>(base::json_integer(saved, "file", where)),
                base::json_integer(saved, "documents", where), base::json_integer(saved, "skipped", where)};
    return written_;
  }

  Json position() const {
    return {
        {"file", written_.file}, {"documents", written_.documents}, {"skipped", written_.skipped}, {"empty", empty_}};
  }

  bool submit_one() {
    base::throw_if_interrupted();
    std::optional<Document> document;
    try {
      document = documents_.next();
    } catch (const Error&) {
      bad_input_ = std::current_exception();  // thrown once what was read before it is written
    }
    if (!document) return false;
    waiting_.push_back({{document->id, document->source, domain_of(*document), 0, 0}, documents_.place()});
    pool_.submit(std::move(document->text));
    return true;
  }

  std::string domain_of(const Document& document) const {
    if (!options_.domain.empty()) return options_.domain;
    if (const auto field = document.fields.find("domain"); field != document.fields.end() && field->is_string()) {
      std::string domain = field->get<std::string>();
      if (!domain.empty() && domain.size() <= most_domain_bytes) return domain;
    }
    return domain_of_file(document.source);
  }

  bool write_one(bool wait) {
    auto ids = pool_.take(wait);
    if (!ids) return false;
    if (ids->empty()) {
      ++empty_;
    } else {
      frame(*ids);
      writer_.append(waiting_.front().document, *ids);
      progress_.advance(static_cast<int64_t>(ids->size()));
    }
    written_ = waiting_.front().after;
    waiting_.pop_front();
    const auto now = std::chrono::steady_clock::now();
    if (std::chrono::duration<double>(now - saved_at_).count() >= options_.save_seconds) {
      writer_.save(position());
      saved_at_ = std::chrono::steady_clock::now();
    }
    return true;
  }

  void frame(std::vector<text::Token>& ids) const {
    if (bos_) ids.insert(ids.begin(), *bos_);
    if (eos_) ids.push_back(*eos_);
    if (options_.max_document_tokens > 0)
      ids.resize(std::min(ids.size(), static_cast<size_t>(options_.max_document_tokens)));
  }

  const CorpusOptions& options_;
  CorpusWriter& writer_;
  std::optional<text::Token> bos_, eos_;
  int64_t empty_ = 0;
  std::exception_ptr bad_input_;
  ReadingPlace written_;  // behind the last document that was appended
  DocumentStream documents_;
  std::deque<Waiting> waiting_;  // what the pool's texts belong to
  TokenizerPool pool_;
  base::Progress progress_;
  std::chrono::steady_clock::time_point saved_at_ = std::chrono::steady_clock::now();
};

void check_options(const CorpusOptions& options) {
  if (options.max_document_tokens < 0 || options.max_skipped < 0 || options.shard_tokens < 1 ||
      options.domain.size() > most_domain_bytes) {
    throw Error(ErrorCode::invalid_argument,
                "a corpus with max_document_tokens " + std::to_string(options.max_document_tokens) + ", max_skipped " +
                    std::to_string(options.max_skipped) + ", shard_tokens " + std::to_string(options.shard_tokens) +
                    "; expected none below 0, shards of at least 1, and a domain of at most 256 bytes");
  }
}

}  // namespace

std::string domain_of_file(const Path& path) {
  std::string name = path.filename().string();
  name.resize(std::min(name.size(), name.find('.')));
  for (size_t i = 0; i + 1 < name.size(); ++i) {
    if (name[i] == '-' && name[i + 1] >= '0' && name[i + 1] <= '9') name.resize(i);
  }
  return name.empty() ? "unnamed" : name;
}

Json inputs_of(const std::vector<Path>& files) {
  Json inputs = Json::array();
  base::Sha256 all;
  for (const Path& file : files) {
    const std::string identity = identity_of(file);
    all.update_values(std::span(identity.data(), identity.size()));
    if (files.size() <= most_files_named) inputs.push_back(identity);
  }
  if (files.size() > most_files_named)
    inputs.push_back(std::to_string(files.size()) + " files, " + base::to_hex(all.finish()));
  return inputs;
}

void expect_documents(const CorpusReport& report, const Path& folder, const std::string& sources) {
  if (report.documents > 0) return;
  std::string message = folder.string() + ": nothing to make a corpus of: " + sources + " hold no document with text";
  if (report.empty > 0) message += "; " + std::to_string(report.empty) + " documents are empty";
  if (report.skipped > 0) message += "; " + std::to_string(report.skipped) + " bad lines or files were passed over";
  throw Error(ErrorCode::invalid_argument, message);
}

CorpusReport build_corpus(const std::vector<Path>& files, const text::Tokenizer& tokenizer, const Path& folder,
                          const CorpusOptions& options) {
  check_options(options);
  CorpusWriter writer(folder, writer_settings(files, tokenizer, options));
  CorpusReport report;
  report.found = writer.documents();
  if (!writer.complete()) {
    if (report.found > 0) base::notice("going on after " + std::to_string(report.found) + " documents");
    Build build(files, tokenizer, writer, options);
    build.run();
    report.skipped = build.skipped();
    report.empty = build.empty();
  }
  report.documents = writer.documents();
  report.tokens = writer.tokens();
  expect_documents(report, folder, "the " + std::to_string(files.size()) + " files");
  writer.finish();
  return report;
}

}  // namespace cepe::data
