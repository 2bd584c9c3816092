#include "data/corpus_writer.h"

#include <algorithm>

#include "base/error.h"

namespace cepe::data {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;
using base::Path;

constexpr const char* state_name = "build.json";
constexpr size_t most_state_bytes = size_t{256} << 20;

std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  return text.size() > 80 ? text.substr(0, 80) + "..." : text;
}

// The first place where two settings differ, as "field: was X, is Y".
std::string difference(const Json& before, const Json& now, const std::string& name) {
  if (before == now) return "";
  if (before.is_object() && now.is_object()) {
    for (const auto& [key, value] : now.items()) {
      const std::string inner = name.empty() ? key : std::string(name).append(".").append(key);
      std::string found = difference(before.contains(key) ? before[key] : Json(), value, inner);
      if (!found.empty()) return found;
    }
  }
  if (before.is_array() && now.is_array()) {
    for (size_t i = 0; i < std::min(before.size(), now.size()); ++i) {
      std::string found = difference(before[i], now[i], name + "[" + std::to_string(i) + "]");
      if (!found.empty()) return found;
    }
    return name + ": were " + std::to_string(before.size()) + ", are " + std::to_string(now.size());
  }
  return name + ": was " + shown(before) + ", is " + shown(now);
}

Json settings_json(const CorpusWriterSettings& settings) {
  Json json = settings.made_from;
  json["vocabulary"] = settings.vocabulary;
  json["tokenizer"] = settings.tokenizer;
  json["shard_tokens"] = settings.shard_tokens;
  return Json::parse(json.dump(-1, ' ', false, Json::error_handler_t::replace));  // as it will be read back
}

void check_same(const Json& before, const Json& now, const Path& folder) {
  const std::string found = difference(before, now, "");
  if (found.empty()) return;
  throw Error(ErrorCode::invalid_argument, folder.string() + ": holds a corpus that was made otherwise (" + found +
                                               "); choose another folder, or remove this one");
}

void hash_file(base::Sha256& hash, const Path& path, int64_t size) {
  if (size == 0) return;
  const base::MappedFile file(path);
  const auto bytes = file.bytes();
  if (bytes.size() < static_cast<size_t>(size)) {
    throw Error(ErrorCode::corrupt, path.string() + ": " + std::to_string(bytes.size()) + " bytes; at least " +
                                        std::to_string(size) + " were written");
  }
  hash.update(bytes.first(static_cast<size_t>(size)));
}

void check_ids(std::span<const text::Token> ids, int64_t vocabulary) {
  for (const text::Token id : ids) {
    if (id < 0 || id >= vocabulary) {
      throw Error(ErrorCode::invalid_argument,
                  "token id " + std::to_string(id) + " is outside the vocabulary of " + std::to_string(vocabulary));
    }
  }
}

// What a process that was ended while it replaced one of these files left beside it.
void remove_leftovers(const Path& folder) {
  std::error_code none;
  std::vector<Path> leftovers;
  for (const auto& entry : std::filesystem::directory_iterator(folder, none)) {
    const std::string name = entry.path().filename().string();
    for (const std::string replaced : {state_name, corpus_index_name}) {
      if (name.starts_with(replaced + ".") && name.size() == replaced.size() + 7) leftovers.push_back(entry.path());
    }
  }
  for (const Path& leftover : leftovers) std::filesystem::remove(leftover, none);
}

void make_folder(const Path& folder) {
  std::error_code problem;
  if (std::filesystem::exists(folder, problem) && !std::filesystem::is_directory(folder, problem))
    throw Error(ErrorCode::invalid_argument, folder.string() + ": is a file; expected a folder");
  std::filesystem::create_directories(folder, problem);
  if (problem) throw Error(ErrorCode::io, folder.string() + ": cannot be made: " + problem.message());
}

}  // namespace

CorpusWriter::CorpusWriter(const Path& folder, const CorpusWriterSettings& settings)
    : folder_(folder), settings_(settings) {
  if (settings.shard_tokens < 1 || settings.vocabulary < 1) {
    throw Error(ErrorCode::invalid_argument, "a corpus with shards of " + std::to_string(settings.shard_tokens) +
                                                 " tokens and a vocabulary of " + std::to_string(settings.vocabulary));
  }
  make_folder(folder);
  lock_ = std::make_unique<FolderLock>(folder);
  remove_leftovers(folder);
  index_.vocabulary = settings.vocabulary;
  index_.bytes_per_id = bytes_per_id(settings.vocabulary);
  index_.tokenizer = settings.tokenizer;
  index_.model = settings.model;
  index_.made_from = settings_json(settings);
  std::error_code none;
  if (const Path done = folder / corpus_index_name; std::filesystem::exists(done, none)) {
    const CorpusIndex before = parse_corpus_index(base::read_file(done, most_state_bytes), done.string());
    check_same(before.made_from, index_.made_from, folder);
    index_ = before;
    complete_ = true;
    std::filesystem::remove(folder / state_name, none);
  } else if (std::filesystem::exists(folder / state_name, none)) {
    resume();
  } else {
    if (!std::filesystem::is_empty(folder, none))
      throw Error(ErrorCode::invalid_argument, folder.string() + ": this folder is not empty and holds no corpus");
    begin();
  }
}

void CorpusWriter::begin() {
  save(nullptr);  // before any other file: without a state they would be taken for somebody else's
  documents_ = std::make_unique<AppendFile>(folder_ / corpus_documents_name, 0);
}

void CorpusWriter::resume() {
  const Path path = folder_ / state_name;
  const std::string where = path.string();
  const Json state = base::parse_json(base::read_file(path, most_state_bytes), where);
  if (!base::json_has(state, "corpus")) throw Error(ErrorCode::corrupt, where + ": field 'corpus' is missing");
  // What is written so far is a corpus of its own, but for the shard that is open.
  const CorpusIndex written = parse_corpus_index(state["corpus"].dump(), where);
  if (written.documents == 0) {
    std::error_code none;
    for (size_t shard = 0; std::filesystem::remove(folder_ / shard_name(shard), none);) ++shard;  // none was saved
    return begin();
  }
  check_same(written.made_from, index_.made_from, folder_);
  const int64_t document_bytes = base::json_integer(state, "document_bytes", where);
  const int64_t open_tokens = base::json_integer(state, "open_tokens", where);
  if (document_bytes < 0 || open_tokens < 0 || open_tokens >= settings_.shard_tokens)
    throw Error(ErrorCode::corrupt, where + ": 'document_bytes' or 'open_tokens' is out of range");
  index_ = written;
  index_.tokens += open_tokens;
  position_ = state.contains("position") ? state["position"] : Json();
  hash_file(documents_hash_, folder_ / corpus_documents_name, document_bytes);
  documents_ = std::make_unique<AppendFile>(folder_ / corpus_documents_name, document_bytes);
  if (open_tokens > 0) open_shard(open_tokens);
}

void CorpusWriter::open_shard(int64_t tokens) {
  if (index_.shards.size() == most_corpus_shards) {
    throw Error(ErrorCode::invalid_argument, folder_.string() + ": " + std::to_string(most_corpus_shards) +
                                                 " shards of " + std::to_string(settings_.shard_tokens) +
                                                 " tokens are full, and a corpus has no more: choose larger shards");
  }
  const Path path = folder_ / shard_name(index_.shards.size());
  shard_hash_ = base::Sha256();
  hash_file(shard_hash_, path, tokens * index_.bytes_per_id);
  shard_ = std::make_unique<AppendFile>(path, tokens * index_.bytes_per_id);
  shard_tokens_ = tokens;
}

void CorpusWriter::close_shard() {
  shard_->sync();
  index_.shards.push_back({shard_tokens_, base::to_hex(shard_hash_.finish())});
  shard_.reset();
  shard_tokens_ = 0;
}

void CorpusWriter::append_tokens(std::span<const text::Token> ids) {
  bytes_.clear();
  for (const text::Token id : ids)  // little-endian, as this machine is: the first two bytes are the lower ones
    bytes_.append(reinterpret_cast<const char*>(&id), static_cast<size_t>(index_.bytes_per_id));
  const auto bytes = std::as_bytes(std::span(bytes_.data(), bytes_.size()));
  shard_->append(bytes);
  shard_hash_.update(bytes);
  shard_tokens_ += static_cast<int64_t>(ids.size());
}

void CorpusWriter::append(const CorpusDocument& document, std::span<const text::Token> ids) {
  check_ids(ids, index_.vocabulary);  // before anything of the document is written
  CorpusDocument complete = document;
  complete.tokens = static_cast<int64_t>(ids.size());
  while (!ids.empty()) {
    if (!shard_) open_shard(0);
    const auto here = std::min(static_cast<size_t>(settings_.shard_tokens - shard_tokens_), ids.size());
    append_tokens(ids.first(here));
    index_.tokens += static_cast<int64_t>(here);
    ids = ids.subspan(here);
    if (shard_tokens_ == settings_.shard_tokens) close_shard();
  }
  const std::string line = print_corpus_document(complete);
  const auto bytes = std::as_bytes(std::span(line.data(), line.size()));
  documents_->append(bytes);
  documents_hash_.update(bytes);
  ++index_.documents;
}

void CorpusWriter::save(const Json& position) {
  if (shard_) shard_->sync();
  if (documents_) documents_->sync();
  sync_folder(folder_);  // the names of new shards, before a state that counts on them
  CorpusIndex written = index_;
  written.tokens -= shard_tokens_;
  written.documents_sha256 = std::string(64, '0');
  const Json state = {{"corpus", Json::parse(print_corpus_index(written))},
                      {"document_bytes", documents_ ? documents_->size() : 0},
                      {"open_tokens", shard_tokens_},
                      {"position", position}};
  base::replace_file(folder_ / state_name, state.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
  position_ = position;
}

void CorpusWriter::finish() {
  if (complete_) return;
  if (shard_) close_shard();
  documents_->sync();
  sync_folder(folder_);
  index_.documents_sha256 = base::to_hex(documents_hash_.finish());
  base::replace_file(folder_ / corpus_index_name, print_corpus_index(index_));
  std::error_code none;
  std::filesystem::remove(folder_ / state_name, none);
  complete_ = true;
}

}  // namespace cepe::data
