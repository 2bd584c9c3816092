// What a pass leaves for the sampler.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "engine/engine.h"
#include "engine/sequence.h"

namespace cepe::engine {

// A sequence whose next token is due.
struct Engine::Sampled {
  Sequence* sequence;
  at::Tensor logits;          // [1, V]
  std::vector<float> masses;  // of its context's pages, where wanted
};

}  // namespace cepe::engine
