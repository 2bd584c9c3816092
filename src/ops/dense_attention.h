// Attention of query rows over keys and values that stand in memory, all of which every row sees.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/merge_attention.h"

namespace cepe::ops {

// Whether these lie on a Hopper GPU and one kernel takes them (cuda/dense_attention.cuh: its bound): bfloat16, of width
// 64 or 128, heads side by side, nothing to differentiate, query rows enough to be worth it.
bool takes_dense_attention(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values);

// queries [T, H, D], keys and values [M, G, D] of one type, H a multiple of G, M at least 1 -> output [H, T, D] (in
// memory [T, H, D]), log-sum-exp [H, T], by arXiv 2407.08608 where takes_dense_attention says so, else composed in
// float32 and differentiable. What a row gets depends on the number of rows only in rounding: that of keys may be
// shared out.
PartialAttention dense_attention(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                                 double scale);

}  // namespace cepe::ops
