// The distance that tensors are compared by: max|found - expected| / max|expected|, in float64, over the whole tensor;
// what should be zero has to be.
#pragma once

#include <ATen/core/Tensor.h>

#include <limits>

namespace cepe::test {

inline double distance(const at::Tensor& found, const at::Tensor& expected) {
  if (!found.defined() || found.sizes() != expected.sizes()) return std::numeric_limits<double>::infinity();
  if (expected.numel() == 0) return 0;
  const at::Tensor wide = expected.detach().to(at::kCPU, at::kDouble);
  const at::Tensor worst = found.detach().to(at::kCPU, at::kDouble).sub(wide).abs().max();
  return worst.div(wide.abs().max().clamp_min(1e-30)).item<double>();
}

}  // namespace cepe::test
