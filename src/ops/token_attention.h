// Self-attention of one decoded token of each of B sequences: rotate_into_cache (rotary.h), then paged_attention of the
// token's heads over all cached rows, its own the last. One launch on a Hopper GPU for queries, keys and values in
// bfloat16, D 64, 128 and 256, up to eight query heads a group and rotations of R a multiple of 8, over a cache in
// bfloat16 whose tables have up to 8,192 rows a sequence, or one in 8 bits.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/paged_attention.h"

namespace cepe::ops {

struct TokenHeads {
  at::Tensor queries;                   // [B, H, D]
  at::Tensor keys, values;              // [B, G, D]
  at::Tensor cos, sin;                  // [B, R/2] float32
  at::Tensor slots;                     // [B] int64, of the cache
  at::Tensor cache_keys, cache_values;  // [slots, G, D], or in 8 bits [slots, G, D + 4] (int8_rows.h)
};

// table: each sequence's pages of that cache (cache_form), the slot of its token the last row of its last page, which
// is not empty; without pages its output is zero, and its slot may be written or not. first [B + 1] int32: query rows
// before each sequence, H/G each up to the last one with pages. On a GPU tables, slots, cos, sin and the cache's older
// rows are read while kernels launched before still run, as many of them as follow one another in line
// (ops/cuda/in_line.cuh): between what wrote them and this call must stand a copy or a kernel that is not launched so,
// such as LibTorch's own.
// -> [B, H, D] of the queries' type. Not differentiable. Errors: those of the two operations.
at::Tensor token_attention(const TokenHeads& heads, const PageTable& table, const at::Tensor& first, double scale);

// Whether that is one launch for these.
bool has_token_kernel(const TokenHeads& heads, const PageTable& table);

}  // namespace cepe::ops
