// Products of one row, or a few, with a dense matrix: what decoding consists of. The matrix is read once, so that its
// bytes over the memory's bandwidth are the bound; a GPU's library, made for many rows, takes a third longer.
#pragma once

#include <ATen/core/Tensor.h>

namespace cepe::ops {

// Whether a kernel stands ready for x [..., in] and weight [out, in]: bfloat16 on an opened GPU, nothing
// differentiated, at most 4 rows of `in` a multiple of 8.
bool takes_row_product(const at::Tensor& x, const at::Tensor& weight);

// x weight^T -> [..., out] of x's type, summed in float32. Without a kernel at::linear. The kernel begins to read the
// weight while the one before it still runs: whatever wrote the weight must be over (synchronise) when this is called.
at::Tensor row_product(const at::Tensor& x, const at::Tensor& weight);

}  // namespace cepe::ops
