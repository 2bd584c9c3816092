// The gradient of rms_norm (norm.h), in one pass over memory.
#pragma once

#include <ATen/core/Tensor.h>

namespace cepe::ops {

struct RmsNormGradients {
  at::Tensor x;       // as x; undefined where not wanted
  at::Tensor weight;  // as weight, summed over the rows in float32 and in an order that depends on the sizes only
};

// Whether there is a kernel for these tensors: x [..., C], weight [C], of one type, float32 or bfloat16, on the CPU, or
// on a GPU up to cuda::widest_rms_norm_gradient.
bool has_rms_norm_gradient(const at::Tensor& x, const at::Tensor& weight);

// y_gradient [..., C]. x and y_gradient contiguous. Nothing of it is differentiable.
RmsNormGradients rms_norm_gradient(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& y_gradient,
                                   double eps, bool unit_offset, bool wants_x, bool wants_weight);

}  // namespace cepe::ops
