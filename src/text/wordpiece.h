// WordPiece (BERT): the longest vocabulary entry that the rest of the word starts with, again and again; a word that
// cannot be spelled so, or is too long, is unknown.
#pragma once

#include <string>
#include <unordered_set>

#include "text/model.h"

namespace cepe::text {

struct WordPieceSettings {
  Token unknown = 0;
  std::string continuing_prefix = "##";  // of every piece of a word but the first
  int64_t longest_word = 100;            // characters
  std::unordered_set<Token> special;     // what no text becomes
};

class WordPiece final : public Model {
 public:
  WordPiece(Vocabulary vocabulary, WordPieceSettings settings);
  void tokenize(const Pieces& pieces, std::vector<Token>& out) const override;
  const Vocabulary& vocabulary() const override { return vocabulary_; }

 private:
  bool append_word(std::string_view word, std::string& spelled, std::vector<Token>& out) const;

  Vocabulary vocabulary_;
  WordPieceSettings settings_;
};

}  // namespace cepe::text
