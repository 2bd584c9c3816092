#include "ops/triangular.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "base/error.h"

namespace cepe::ops {
namespace {

constexpr int64_t block_columns = 128;

[[noreturn]] void refuse(const std::string& message) {
  throw base::Error(base::ErrorCode::invalid_argument, "cholesky: " + message);
}

// A block on the diagonal: L [n, n] and its inverse, on the CPU.
struct Factor {
  at::Tensor lower, inverse;
};

Factor factor_block(const at::Tensor& block, int64_t first) {
  const int64_t n = block.size(0);
  const at::Tensor from = block.to(at::kCPU).contiguous();
  Factor factor = {at::zeros({n, n}, from.options()), at::zeros({n, n}, from.options())};
  const double* a = from.const_data_ptr<double>();
  auto* l = factor.lower.mutable_data_ptr<double>();
  auto* inverse = factor.inverse.mutable_data_ptr<double>();
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      double sum = a[i * n + j];
      for (int64_t k = 0; k < j; ++k) sum -= l[i * n + k] * l[j * n + k];
      if (i == j && !(sum > 0 && std::isfinite(sum)))
        refuse("the matrix is not positive definite at row " + std::to_string(first + i));
      l[i * n + j] = i == j ? std::sqrt(sum) : sum / l[j * n + j];
    }
  }
  for (int64_t column = 0; column < n; ++column) {  // L times its inverse is 1, from the diagonal down
    for (int64_t i = column; i < n; ++i) {
      double sum = i == column ? 1 : 0;
      for (int64_t k = column; k < i; ++k) sum -= l[i * n + k] * inverse[k * n + column];
      inverse[i * n + column] = sum / l[i * n + i];
    }
  }
  return factor;
}

}  // namespace

at::Tensor cholesky(const at::Tensor& matrix) {
  const at::NoGradGuard none;
  if (matrix.dim() != 2 || matrix.size(0) != matrix.size(1) || matrix.scalar_type() != at::kDouble) {
    refuse("expected a square matrix of float64");
  }
  const int64_t n = matrix.size(0);
  at::Tensor rest = matrix.clone();  // what is left of the matrix behind the columns done
  at::Tensor lower = at::zeros_like(rest);
  for (int64_t first = 0; first < n; first += block_columns) {
    const int64_t count = std::min(block_columns, n - first), next = first + count, left = n - next;
    const Factor factor = factor_block(rest.narrow(0, first, count).narrow(1, first, count), first);
    lower.narrow(0, first, count).narrow(1, first, count).copy_(factor.lower);
    if (left == 0) break;
    const at::Tensor below =
        rest.narrow(0, next, left).narrow(1, first, count).matmul(factor.inverse.to(matrix.device()).t());
    lower.narrow(0, next, left).narrow(1, first, count).copy_(below);
    rest.narrow(0, next, left).narrow(1, next, left).addmm_(below, below.t(), 1, -1);
  }
  return lower;
}

}  // namespace cepe::ops
