#include "data/masking.h"

#include <algorithm>
#include <string>

#include "base/error.h"
#include "data/random_numbers.h"

namespace cepe::data {
namespace {

// Purposes, so that equal seeds and indices draw different numbers for each.
constexpr uint64_t for_tokens = 0x746f6b656e73;
constexpr uint64_t for_context = 0x636f6e74657874;

void check_probability(double value, const char* name) {
  if (value >= 0 && value <= 1) return;  // false for what is no number
  throw base::Error(base::ErrorCode::invalid_argument,
                    std::string(name) + " is " + std::to_string(value) + "; expected 0 to 1");
}

}  // namespace

MaskedTokens mask_tokens(std::span<const text::Token> ids, double probability, text::Token mask_id, uint64_t seed,
                         uint64_t index) {
  check_probability(probability, "probability");
  MaskedTokens masked{{ids.begin(), ids.end()}, std::vector<text::Token>(ids.size(), no_label)};
  for (size_t i = 0; i < ids.size(); ++i) {
    if (fraction(random_bits(seed, for_tokens, index, i)) >= probability) continue;
    masked.labels[i] = ids[i];
    masked.ids[i] = mask_id;
  }
  return masked;
}

std::vector<uint8_t> mask_context(int64_t chunks, int64_t chunk_size, double mask_prob, double mask_seq_prob,
                                  uint64_t seed, uint64_t index) {
  check_probability(mask_prob, "mask_prob");
  check_probability(mask_seq_prob, "mask_seq_prob");
  if (chunks < 0 || chunk_size < 0) {
    throw base::Error(base::ErrorCode::invalid_argument,
                      std::to_string(chunks) + " chunks of " + std::to_string(chunk_size) + " tokens to mask");
  }
  std::vector<uint8_t> seen(static_cast<size_t>(chunks * chunk_size), 1);
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const auto bits = [&](uint64_t use) { return random_bits(seed, for_context, index, chunk, use); };
    if (fraction(bits(0)) >= mask_prob) continue;
    const bool whole = fraction(bits(1)) < mask_seq_prob || chunk_size < 2;
    const int64_t masked =
        whole ? chunk_size : 1 + static_cast<int64_t>(below(bits(2), static_cast<uint64_t>(chunk_size - 1)));
    const auto end = seen.begin() + static_cast<ptrdiff_t>((chunk + 1) * chunk_size);
    std::fill(end - static_cast<ptrdiff_t>(masked), end, uint8_t{0});
  }
  return seen;
}

}  // namespace cepe::data
