// Rotary position embedding (RoFormer, arXiv 2104.09864; the half-split pairing of Llama).
#pragma once

#include <ATen/core/Tensor.h>

namespace cepe::ops {

// Rotates pairs (i, i + R/2) of the first R = 2 * cos.size(-1) channels: x*cos + [-x2, x1]*sin; channels from R on
// pass. x [N, heads, D], cos and sin [N, R/2] float32 (already scaled) -> [N, heads, D] of x's type; computed in
// float32 for float32 x; for bfloat16 x cos and sin are rounded to bfloat16 first, as the published code does.
// Differentiable in x (any number of times): the gradient is turned back by the same angles.
at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

// What lies between a decoder layer's fused product and its attention, in one launch on a GPU: keys [N, G, D], rotated,
// and values [N, G, D] go into slots [N] int64 of a cache [slots, G, D], in its type, or packed [slots, G, D + 4]
// (int8_rows.h). Queries [N, H, D] -> rotated. Not differentiable. On a GPU slots, cos and sin are read while the
// kernel launched just before still runs (as paged_attention.h has it): they must come from further back.
at::Tensor rotate_into_cache(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                             const at::Tensor& cos, const at::Tensor& sin, const at::Tensor& slots,
                             const at::Tensor& cache_keys, const at::Tensor& cache_values);

}  // namespace cepe::ops
