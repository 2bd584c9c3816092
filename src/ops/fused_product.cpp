#include "ops/fused_product.h"

#include <ATen/ops/empty.h>

#include <limits>
#include <vector>

#include "ops/activation.h"
#include "ops/gpu_factors.h"
#include "ops/rotary.h"
#include "ops/tuned_product.h"

namespace cepe::ops {
namespace {

// Whether the result has tiles enough to occupy a GPU for several rounds.
bool may_be_fused(const at::Tensor& x, const at::Tensor& weight) {
  constexpr int64_t least_outputs = int64_t{1} << 25;
  if (!are_gpu_factors(x, weight)) return false;
  const int64_t rows = x.numel() / x.size(-1);
  return weight.size(1) % 8 == 0 && weight.size(0) % 16 == 0 && rows <= std::numeric_limits<int>::max() / 2 &&
         rows * weight.size(0) >= least_outputs;
}

cuda::FusedProductRun run_of(const at::Tensor& y, const at::Tensor& x, const at::Tensor& weight) {
  return {.x = x.const_data_ptr(),
          .weight = weight.const_data_ptr(),
          .y = y.mutable_data_ptr(),
          .rows = x.numel() / x.size(-1),
          .inputs = weight.size(1),
          .outputs = weight.size(0),
          .device = x.device().index()};
}

bool are_angles(const at::Tensor& angles, const at::Tensor& x, int64_t width) {
  return is_plain_dense(angles, at::kFloat, x.device()) && angles.dim() == 2 && angles.size(0) == x.size(0) &&
         angles.size(1) * 2 == width && is_aligned(angles);
}

RotatedHeads split(const at::Tensor& fused, int64_t heads, int64_t width) {
  const at::Tensor all = fused.unflatten(1, {-1, width});
  return {all.narrow(1, 0, heads), all.narrow(1, heads, all.size(1) - heads)};
}

}  // namespace

at::Tensor gated_product(Activation activation, const at::Tensor& x, const at::Tensor& weight) {
  if (may_be_fused(x, weight)) {
    std::vector<int64_t> shape = x.sizes().vec();
    shape.back() = weight.size(0) / 2;
    at::Tensor y = at::empty(shape, x.options());
    if (cuda::kernels()->gated_product({run_of(y, x, weight), activation})) return y;
  }
  return gated(activation, tuned_product(x, weight));
}

RotatedHeads rotate_heads(const at::Tensor& fused, const at::Tensor& cos, const at::Tensor& sin, int64_t heads,
                          int64_t width) {
  const auto [first, others] = split(fused, heads, width);
  return {rotate(first, cos, sin), others};
}

RotatedHeads rotated_product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& cos,
                             const at::Tensor& sin, int64_t heads, int64_t width) {
  if (x.dim() == 2 && may_be_fused(x, weight) && are_angles(cos, x, width) && are_angles(sin, x, width)) {
    const at::Tensor y = at::empty({x.size(0), weight.size(0)}, x.options());
    if (cuda::kernels()->rotated_product({.product = run_of(y, x, weight),
                                          .cos = cos.const_data_ptr<float>(),
                                          .sin = sin.const_data_ptr<float>(),
                                          .heads = heads,
                                          .width = width}))
      return split(y, heads, width);
  }
  return rotate_heads(tuned_product(x, weight), cos, sin, heads, width);
}

}  // namespace cepe::ops
