// Products of each head's row with the matrix of its group, for a few rows: what absorbing Wk and Wv into query and
// output comes to when decoding (model/cross_attention.h). H heads, G groups; head h has group h / (H/G).
#pragma once

#include <ATen/core/Tensor.h>

namespace cepe::ops {

// x [B, H, K], weight [G * D, K] -> y [B, H, D], y[b, h] = weight_g x[b, h].
// One launch on a GPU, in bfloat16, for B * H/G up to 4 rows; elsewhere batched products of ATen, differentiable.
// The kernel reads the weight while the one before it still runs: whatever wrote it must be over (synchronise).
at::Tensor head_product(const at::Tensor& x, const at::Tensor& weight, int64_t groups);

// x [B, H, D], weight [G * D, E] -> y [B, H, E], y[b, h] = weight_g^T x[b, h]. Likewise.
at::Tensor transposed_head_product(const at::Tensor& x, const at::Tensor& weight, int64_t groups);

}  // namespace cepe::ops
