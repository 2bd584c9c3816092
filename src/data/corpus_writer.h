// Writes a corpus' folder so that work that was interrupted, however, goes on after the last save().
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/files.h"
#include "base/hash.h"
#include "base/json.h"
#include "data/append_file.h"
#include "data/corpus_index.h"

namespace cepe::data {

struct CorpusWriterSettings {
  int64_t vocabulary = 0;
  std::string tokenizer;                        // fingerprint
  std::string model;                            // whose tokenizer, for people
  int64_t shard_tokens = int64_t{1} << 27;      // a document may lie in several shards
  base::Json made_from = base::Json::object();  // whatever decides the result: another value is another corpus
};

class CorpusWriter {
 public:
  // Begins in a folder that is empty or not there yet, or goes on with an unfinished corpus that was made from the
  // same; one without a document is begun anew, whatever it was made from. Errors: invalid_argument for another folder,
  // naming what differs; corrupt for one that is damaged; io.
  CorpusWriter(const base::Path& folder, const CorpusWriterSettings& settings);

  bool complete() const { return complete_; }               // it was finished before: nothing is left to do
  const base::Json& position() const { return position_; }  // what the last save() was told; null at the beginning
  int64_t documents() const { return index_.documents; }
  int64_t tokens() const { return index_.tokens; }

  // `document`'s id, source and domain count; its tokens are ids.size(). Errors: io; invalid_argument for an id outside
  // the vocabulary, and for more shards than a corpus may have.
  void append(const CorpusDocument& document, std::span<const text::Token> ids);
  // All documents so far, and `position`, survive whatever happens next. Errors: io.
  void save(const base::Json& position);
  // Makes it a corpus that TokenCorpus opens. Errors: io.
  void finish();

 private:
  void begin();
  void resume();
  void open_shard(int64_t tokens);
  void close_shard();
  void append_tokens(std::span<const text::Token> ids);

  base::Path folder_;
  CorpusWriterSettings settings_;
  std::unique_ptr<FolderLock> lock_;
  CorpusIndex index_;  // shards: those that are full
  base::Json position_;
  bool complete_ = false;
  std::unique_ptr<AppendFile> documents_;
  std::unique_ptr<AppendFile> shard_;
  int64_t shard_tokens_ = 0;  // in the open shard
  base::Sha256 shard_hash_;
  base::Sha256 documents_hash_;
  std::string bytes_;
};

}  // namespace cepe::data
