// Products of many rows with a dense matrix, and what follows them element by element before their result goes to
// memory. On a Hopper GPU one kernel each where the result is large (cuda/fused_product.cuh: its bound); the product
// and then the other operation elsewhere. The roundings are the same in both ways; the order of a product's sums is
// not.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/activation_kind.h"

namespace cepe::ops {

// gated(activation, x weight^T) (ops/activation.h) for x [..., in], weight [2F, in] -> [..., F] of x's type.
at::Tensor gated_product(Activation activation, const at::Tensor& x, const at::Tensor& weight);

struct RotatedHeads {
  at::Tensor rotated;  // [N, heads, width]
  at::Tensor others;   // [N, all - heads, width]
};
// The heads of fused [N, all * width], of which the first `heads` are rotated (ops/rotary.h) by cos and sin [N, R/2].
RotatedHeads rotate_heads(const at::Tensor& fused, const at::Tensor& cos, const at::Tensor& sin, int64_t heads,
                          int64_t width);
// The same of x weight^T for x [N, in], weight [all * width, in].
RotatedHeads rotated_product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& cos,
                             const at::Tensor& sin, int64_t heads, int64_t width);

}  // namespace cepe::ops
