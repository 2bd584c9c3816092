#include "ops/mixed_linear.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>

#include <algorithm>
#include <vector>

#include "ops/cpu/kernels.h"

namespace cepe::ops {
namespace {

constexpr int64_t widened_values = int64_t{1} << 18;  // 1 MB of float32: it stays in cache until it is multiplied
constexpr int64_t few_rows = 6;  // LibTorch takes so few as dot products, which read bfloat16 at a fair rate anywhere

}  // namespace

bool multiplies_bfloat16() { return cpu::level() == cpu::Level::avx512; }

at::Tensor mixed_linear(const at::Tensor& x, const at::Tensor& weight) {
  const bool few = x.dim() > 0 && x.numel() <= few_rows * x.size(-1);
  if (!x.is_cpu() || weight.scalar_type() != at::kBFloat16 || few || multiplies_bfloat16()) {
    return at::linear(x.to(weight.scalar_type()), weight).to(x.scalar_type());
  }
  const at::Tensor rows = x.to(at::kFloat);
  const int64_t outputs = weight.size(0);
  const int64_t piece = std::clamp<int64_t>(widened_values / std::max<int64_t>(weight.size(1), 1), 1, outputs);
  std::vector<at::Tensor> columns;
  for (int64_t first = 0; first < outputs; first += piece) {
    const at::Tensor part = weight.narrow(0, first, std::min(piece, outputs - first));
    columns.push_back(at::linear(rows, part.to(at::kFloat)).to(x.scalar_type()));
  }
  return columns.size() == 1 ? columns.front() : at::cat(columns, -1);
}

}  // namespace cepe::ops
