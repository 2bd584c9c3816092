// Choosing the next tokens of a batch from its logits, with tensor operations on the logits' device: what comes back to
// the host is one small tensor a step.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "text/tokenizer.h"

namespace cepe::engine {

// temperature 0 = greedy. Order: penalties, logit bias, temperature, top-k, top-p, min-p (as transformers and vLLM do).
struct Sampling {
  double temperature = 0;
  double top_p = 1;   // (0, 1]
  int64_t top_k = 0;  // 0 = all
  double min_p = 0;   // [0, 1)
  double repetition_penalty =
      1;  // 1e-30 to 1e30; divides positive and multiplies negative logits of tokens seen (arXiv 1909.05858)
  double frequency_penalty = 0, presence_penalty = 0;  // OpenAI's; of generated tokens
  // Added to these tokens' logits: -1e30 to 1e30, or -infinity, which bans one. Those of one token add up.
  std::vector<std::pair<text::Token, double>> logit_bias = {};
  uint64_t seed = 0;
};

// Errors: invalid_argument, naming the option and its range.
void validate(const Sampling& sampling);
// Nor is there a bias for a token outside the vocabulary, nor are all of its tokens banned.
void validate(const Sampling& sampling, int64_t vocabulary);

struct TokenLogProbability {
  text::Token token = 0;
  float log_probability = 0;  // ln softmax of the unmodified logits
};

// The sampling state of one sequence. Its draws depend on its seed and nothing else.
class Sampler {
 public:
  // Tokens of the prompt count for the repetition penalty. Errors: as validate.
  Sampler(Sampling sampling, std::span<const text::Token> prompt, int64_t vocabulary, at::Device device);

  const Sampling& sampling() const { return sampling_; }
  bool modifies() const { return penalises() || bias_.defined(); }
  // logits [V] float32, in place.
  void modify(const at::Tensor& logits) const;
  // In [0, 1), what the next token is drawn by: the same until that one is counted.
  double uniform() const { return uniform_; }
  // A token that was generated. Takes no memory: there is no error that leaves it half counted.
  void count(text::Token token);

 private:
  bool penalises() const;
  double draw() { return std::uniform_real_distribution<double>(0, 1)(random_); }

  Sampling sampling_;
  std::mt19937_64 random_;
  double uniform_;
  at::Tensor seen_, counts_;         // [V] bool: prompt and generated; [V] float32: generated
  at::Tensor one_;                   // [] float32
  at::Tensor biased_tokens_, bias_;  // [n] int64, [n] float32
};

inline constexpr text::Token no_token = -1;

struct Choice {
  text::Token token = 0;  // no_token where one of the logits is NaN
  // [0] the token itself, then the best, of equals the smaller id first; empty unless asked for.
  std::vector<TokenLogProbability> log_probabilities;
};

// One token for each row of logits [R, V] float32; samplers [R]; alternatives [R]: how many log-probabilities beside
// the token's own, -1 for none at all. The samplers count what they chose; after an error (no memory) they stand as
// they did, so that the same tokens are chosen the next time.
std::vector<Choice> choose(const at::Tensor& logits, std::span<Sampler* const> samplers,
                           std::span<const int64_t> alternatives);

}  // namespace cepe::engine
