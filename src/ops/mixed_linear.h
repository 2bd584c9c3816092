// Products of float32 rows with bfloat16 weights on the CPU.
#pragma once

#include <ATen/core/Tensor.h>

namespace cepe::ops {

// Whether this CPU multiplies bfloat16 matrices faster than float32 ones. LibTorch has kernels for that from AVX-512
// on; below it a bfloat16 product takes 30 to 400 times as long as the float32 one (docs/performance.md).
bool multiplies_bfloat16();

// x [..., in] times weight^T [in, out], of two types -> [..., out] of x's type. Computed in the weight's type, or
// where this CPU lacks products of that type and there are more than 6 rows, in float32 over pieces of the weight.
// Differentiable.
// Errors: LibTorch's, where shapes do not agree.
at::Tensor mixed_linear(const at::Tensor& x, const at::Tensor& weight);

}  // namespace cepe::ops
