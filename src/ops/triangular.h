// Factors of symmetric matrices, on the CPU and on a GPU: LibTorch's own need cuSOLVER there, which the program does
// not ship.
#pragma once

#include <ATen/core/Tensor.h>

namespace cepe::ops {

// matrix [n, n] float64, symmetric and positive definite (its lower triangle is read) -> L [n, n], lower triangular,
// L L^T = matrix. By blocks: those on the diagonal on the CPU, all else by products on the matrix' device.
// Errors: invalid_argument where the matrix is not positive definite or not finite.
at::Tensor cholesky(const at::Tensor& matrix);

}  // namespace cepe::ops
