// Self-attention of one decoded token of each of B sequences: rotate_into_cache (rotary.h), then paged_attention of the
// token's heads over all cached rows, its own the last. One launch on a Hopper GPU for D 64, 128 and 256 and up to
// eight query heads a group.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/paged_attention.h"

namespace cepe::ops {

struct TokenHeads {
  at::Tensor queries;                   // [B, H, D]
  at::Tensor keys, values;              // [B, G, D]
  at::Tensor cos, sin;                  // [B, R/2] float32
  at::Tensor slots;                     // [B] int64, of the cache
  at::Tensor cache_keys, cache_values;  // [slots, G, D]
};

// table: each sequence's pages of that cache, the slot of its token the last row of its last page; without pages its
// output is zero, and its slot may be written or not. first [B + 1] int32: query rows before each sequence, H/G each
// up to the last one with pages. On a GPU tables, slots, cos, sin and the cache's older rows are read while the
// kernel launched just before still runs: they must come from copies or from kernels further back. Not differentiable.
// -> [B, H, D] of the queries' type.
at::Tensor token_attention(const TokenHeads& heads, const PageTable& table, const at::Tensor& first, double scale);

}  // namespace cepe::ops
