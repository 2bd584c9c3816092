// What is hidden from a model in training, as pure functions of (seed, index): the same for any number of ranks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "text/tokenizer.h"

namespace cepe::data {

inline constexpr text::Token no_label = -100;  // a position without loss

struct MaskedTokens {
  std::vector<text::Token> ids;     // [S], mask_id where masked
  std::vector<text::Token> labels;  // [S], the token that was there, no_label where nothing was masked
};

// Masked language modelling as CEPE's encoder is trained: each token with `probability`, and what is chosen always
// becomes mask_id (no random or kept tokens). Errors: invalid_argument for a probability outside [0, 1].
MaskedTokens mask_tokens(std::span<const text::Token> ids, double probability, text::Token mask_id, uint64_t seed,
                         uint64_t index);

// Attention mask of K chunks of S context tokens, [K * S], 1 = seen. Each chunk is masked with mask_prob: of those a
// share of mask_seq_prob wholly, of the rest the last 1 to S - 1 tokens (published training code, numpy's randint(1,
// S)). Errors: invalid_argument for probabilities outside [0, 1] or a negative K or S.
std::vector<uint8_t> mask_context(int64_t chunks, int64_t chunk_size, double mask_prob, double mask_seq_prob,
                                  uint64_t seed, uint64_t index);

}  // namespace cepe::data
