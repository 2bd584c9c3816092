// Byte-pair encoding: a piece starts as its characters; the neighbours whose merge has the lowest rank are joined
// until none can be (Sennrich et al. 2016, as Hugging Face's tokenizers does it). O(n log n) in the piece's length.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <unordered_set>

#include "text/merge_table.h"
#include "text/model.h"

namespace cepe::text {

struct BpeSettings {
  Token unknown = Vocabulary::absent;  // stands for characters that are no token; absent: they are dropped
  bool fuse_unknown = false;           // a run of them is one
  bool byte_fallback = false;          // they become <0xXX> tokens where all of those exist
  bool ignore_merges = false;          // a piece that is a token is that token, merges or not
  std::unordered_set<Token> special;   // but not one of these
  std::string continuing_prefix;       // put before every character but the first of a piece
  std::string end_suffix;              // put after the last
};

class Bpe final : public Model {
 public:
  Bpe(Vocabulary vocabulary, MergeTable merges, BpeSettings settings);
  ~Bpe() override;
  void tokenize(const Pieces& pieces, std::vector<Token>& out) const override;
  const Vocabulary& vocabulary() const override { return vocabulary_; }

 private:
  struct Workspace;
  class WorkspacePool;

  bool can_cut_at_marker() const;
  void tokenize_piece(std::string_view piece, Workspace& workspace, std::vector<Token>& out) const;
  void tokenize_word(std::string_view word, Workspace& workspace, std::vector<Token>& out) const;
  void split_into_symbols(std::string_view word, Workspace& workspace) const;
  bool append_bytes(std::string_view character, Workspace& workspace) const;
  void merge_symbols(Workspace& workspace) const;

  Vocabulary vocabulary_;
  MergeTable merges_;
  BpeSettings settings_;
  std::array<Token, 256> byte_tokens_;  // <0xXX>
  // Whether a long piece may be cut before each U+2581 that follows another character: no merge spans such a place.
  bool cut_at_marker_ = false;
  std::unique_ptr<WorkspacePool> workspaces_;
};

}  // namespace cepe::text
