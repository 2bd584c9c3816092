// Unigram (Kudo 2018): the segmentation of a piece whose tokens' log-probabilities sum highest, by Viterbi.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <string>
#include <unordered_set>

#include "base/json.h"
#include "text/added_tokens.h"
#include "text/model.h"
#include "text/pattern.h"

namespace cepe::text {

class Unigram final : public Model {
 public:
  // `scores` by id; `unknown` absent where the vocabulary has no such token. No text becomes one of `special`.
  Unigram(Vocabulary vocabulary, std::vector<double> scores, Token unknown, bool byte_fallback,
          const std::unordered_set<Token>& special);
  void tokenize(const Pieces& pieces, std::vector<Token>& out) const override;
  const Vocabulary& vocabulary() const override { return vocabulary_; }

 private:
  struct Node {
    size_t start = 0;  // of the best token that ends here
    double score = 0;  // of the best path to here
    Token id = Vocabulary::absent;
    bool reached = false;
  };
  void fill(std::string_view text, std::vector<Node>& nodes) const;
  void append_unknown(std::string_view text, std::vector<Token>& out) const;

  Vocabulary vocabulary_;
  std::vector<double> scores_;
  double unknown_score_ = 0;
  Token unknown_;
  bool byte_fallback_;
  std::array<Token, 256> byte_tokens_;
  // The trie of all tokens as a table: (node, byte) -> node, and the token that ends at a node.
  struct TrieNode {
    int32_t child = -1, sibling = -1;
    Token token = Vocabulary::absent;
    uint8_t byte = 0;
  };
  int32_t child_of(int32_t node, uint8_t byte) const;
  std::array<int32_t, 256> roots_;
  std::vector<TrieNode> trie_;
};

// `added`: the tokenizer's added tokens. Errors: corrupt, unsupported; naming `where`.
std::unique_ptr<Model> unigram_from_json(const base::Json& json, std::span<const AddedToken> added,
                                         const std::string& where);

}  // namespace cepe::text
