// The part of a tokenizer that turns pieces of text into tokens: BPE, WordPiece, Unigram.
#pragma once

#include <vector>

#include "text/pieces.h"
#include "text/vocabulary.h"

namespace cepe::text {

class Model {
 public:
  virtual ~Model() = default;
  // Appends the tokens of every piece in order. Safe to call from several threads.
  virtual void tokenize(const Pieces& pieces, std::vector<Token>& out) const = 0;
  virtual const Vocabulary& vocabulary() const = 0;
};

}  // namespace cepe::text
