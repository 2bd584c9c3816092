// Tells whether two tokenizers give the same ids, wherever their files are.
#pragma once

#include <string>

#include "text/tokenizer.h"

namespace cepe::data {

// SHA-256 (hexadecimal) of the vocabulary's size, of every token's spelling, and of the ids of a few texts, where rules
// of splitting and merging show.
std::string tokenizer_fingerprint(const text::Tokenizer& tokenizer);

}  // namespace cepe::data
