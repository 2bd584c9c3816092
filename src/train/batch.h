// Samples of a corpus as the tensors of one micro-batch, and what each window of them sees.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "data/prepared_samples.h"
#include "data/sampler.h"
#include "model/cross_attention.h"
#include "train/recipe.h"

namespace cepe::train {

// A sample is context_tokens of text and then `windows` windows of decoder_tokens; window w is given as context the
// encoded chunks of all text before it, so that one encoding serves every window.
struct Batch {
  at::Tensor tokens;  // [B, N] int64, N = context_tokens + windows * decoder_tokens
  int64_t context_tokens = 0, decoder_tokens = 0, windows = 1;
  std::vector<model::SharedContext::Slice> slices;  // by window
  at::Tensor context_mask;                          // [B, K, S] uint8 (1 = a real token), or undefined: all are
  at::Tensor labels;                                // stage mlm: [B, N] int64, -100 = not masked
  // What the teacher said of the last Td = floor(T/2) positions, where that is stored: [B, Td, k + 1] float32, the last
  // = all other tokens, and [B, Td, k] int64. Undefined: the teacher is asked.
  at::Tensor teacher_probabilities, teacher_indices;

  int64_t encoded_tokens() const;  // of a sample: the longest reach of a slice
  // Windows in the order in which layers take them (window 0 of every sample, window 1 of every sample, ...):
  // [W * B, T]. `next` = the ids that follow, -100 after a sample's last one.
  at::Tensor window_tokens() const;
  at::Tensor next_tokens() const;
  int64_t predicted() const;  // how many tokens follow another
  // What its means count for in those of a step: stage mlm masks more tokens of one micro-batch than of another, all
  // other stages predict equally many.
  double weight() const;
};

// Which samples: `count` from `first` on. The variations of the recipe's phase are drawn from (seed, first). Pure.
// Stage warmup: the context is the window itself. Stage mlm: masked with mask_token.
struct BatchRequest {
  Stage stage = Stage::cepe;
  PhaseSettings phase;
  int64_t chunk_size = 256;
  uint64_t seed = 0;
  double mask = 0;             // stage mlm
  text::Token mask_token = 0;  // stage mlm
  int64_t vocabulary = 0;      // an id beyond it is an error; 0: any
};
// Errors: invalid_argument for an id beyond the vocabulary, naming it.
Batch make_batch(const data::Sampler& sampler, const BatchRequest& request, uint64_t first, int64_t count,
                 at::Device device);
// The same of samples prepared beforehand (stages cepe and ceped, one window): their context and window are the
// sample's text.
Batch make_batch(const data::PreparedSamples& samples, const BatchRequest& request, uint64_t first, int64_t count,
                 at::Device device);

// Tokens a sample of the phase has.
int64_t sample_tokens(const PhaseSettings& phase);

// What window w of a phase sees without any variation: everything before it.
std::vector<model::SharedContext::Slice> all_before(const PhaseSettings& phase);
// The same with the phase's variations, drawn from (seed, first).
std::vector<model::SharedContext::Slice> varied(const PhaseSettings& phase, int64_t chunk_size, uint64_t seed,
                                                uint64_t first);

}  // namespace cepe::train
