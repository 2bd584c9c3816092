// What a decode step reads on the device, so that it can be recorded as a graph: everything that changes from one token
// to the next lies in tensors that the recorded kernels read where they are.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "ops/paged_attention.h"

namespace cepe::model {

// Tables of a pass of B sequences with a token each; layers take them instead of a layout's host numbers.
struct StepTables {
  at::Tensor slots;                     // [B] int64: where each new row goes in the cache
  std::vector<ops::PageTable> cache;    // by decoder layer: each sequence's rows so far, the new one included
  std::vector<ops::PageTable> context;  // by cross-attention layer, or one for all (absorbed: the states themselves)
  bool absorbed = true;                 // else kept K and V
  at::Tensor cache_queries, context_queries;  // [B + 1] int32: first query row of each sequence in the two
};

}  // namespace cepe::model
