#include "ops/row_product.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>

#include "ops/cuda/loaded.h"
#include "ops/fused.h"

namespace cepe::ops {

bool takes_row_product(const at::Tensor& x, const at::Tensor& weight) {
  if (!x.is_cuda() || x.dim() < 1 || weight.dim() != 2 || x.size(-1) != weight.size(1) || !cuda::kernels())
    return false;
  const auto dense = [&](const at::Tensor& tensor) { return is_plain_dense(tensor, at::kBFloat16, x.device()); };
  const int64_t width = x.size(-1);
  return dense(x) && dense(weight) && width > 0 && width % 8 == 0 && is_aligned(x) && is_aligned(weight) &&
         x.numel() > 0 && weight.size(0) > 0 && x.numel() <= cuda::most_row_product_values &&
         x.numel() / width <= cuda::most_row_product_rows;
}

at::Tensor row_product(const at::Tensor& x, const at::Tensor& weight) {
  if (!takes_row_product(x, weight)) return at::linear(x, weight);
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = weight.size(0);
  at::Tensor y = at::empty(shape, x.options());
  cuda::check(cuda::kernels()->row_product({.x = x.const_data_ptr(),
                                            .weight = weight.const_data_ptr(),
                                            .y = y.mutable_data_ptr(),
                                            .rows = x.numel() / x.size(-1),
                                            .inputs = weight.size(1),
                                            .outputs = weight.size(0),
                                            .groups = 1,
                                            .heads = 1,
                                            .device = x.device().index()}),
              "row_product");
  return y;
}

}  // namespace cepe::ops
