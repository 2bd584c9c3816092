// Choosing the next token from logits.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "text/tokenizer.h"

namespace cepe::engine {

// temperature 0 = greedy. Order: penalties, temperature, top-k, top-p, min-p (as transformers and vLLM do).
struct Sampling {
  double temperature = 0;
  double top_p = 1;   // (0, 1]
  int64_t top_k = 0;  // 0 = all
  double min_p = 0;   // [0, 1)
  double repetition_penalty =
      1;  // > 0; divides positive and multiplies negative logits of tokens seen (arXiv 1909.05858)
  double frequency_penalty = 0, presence_penalty = 0;  // OpenAI's; of generated tokens
  uint64_t seed = 0;
};

// Errors: invalid_argument, naming the option and its range.
void validate(const Sampling& sampling);

struct TokenLogProbability {
  text::Token token = 0;
  float log_probability = 0;  // ln softmax of the unmodified logits
};

class Sampler {
 public:
  explicit Sampler(const Sampling& sampling);
  // logits [V] float32; prompt and generated tokens so far (for penalties).
  text::Token sample(const at::Tensor& logits, std::span<const text::Token> prompt,
                     std::span<const text::Token> generated);

 private:
  Sampling sampling_;
  std::mt19937_64 random_;
};

// The chosen token's log-probability and the `count` best (best first).
std::vector<TokenLogProbability> top_log_probabilities(const at::Tensor& logits, text::Token chosen, int64_t count);

}  // namespace cepe::engine
