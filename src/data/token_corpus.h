// A tokenised corpus on disk, memory-mapped: documents one after the other, without anything between them.
// Folder: corpus.json (corpus_index.h), documents.jsonl (a document a line, in order), tokens-00000.bin,
// tokens-00001.bin... (little-endian uint16 where the vocabulary fits, else uint32).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/files.h"
#include "text/tokenizer.h"

namespace cepe::data {

struct CorpusIndex;

struct CorpusDocument {
  std::string id, source, domain;
  int64_t first = 0;  // offset of its first token in the whole corpus
  int64_t tokens = 0;
};

// The read side. Copies share the mapped files; all functions may be called from any number of threads.
class TokenCorpus {
 public:
  // Errors: not_found; corrupt (file and field), also where sizes or the checksum of documents.jsonl disagree with
  // corpus.json. Token files are checked by size here and by content in verify().
  static TokenCorpus open(const base::Path& folder);

  std::span<const CorpusDocument> documents() const;
  int64_t tokens() const;
  int64_t vocabulary() const;
  const CorpusIndex& index() const;

  // out.size() ids from token `first` of the whole corpus. Errors: invalid_argument beyond the corpus' end; corrupt for
  // an id outside the vocabulary.
  void read(int64_t first, std::span<text::Token> out) const;

  // All checksums, and every id against the vocabulary. Reads the whole corpus. Errors: corrupt; base::Interrupted.
  void verify() const;

 private:
  struct State;
  explicit TokenCorpus(std::shared_ptr<const State> state) : state_(std::move(state)) {}

  std::shared_ptr<const State> state_;
};

}  // namespace cepe::data
