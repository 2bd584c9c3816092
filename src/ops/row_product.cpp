#include "ops/row_product.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>

#include "ops/gpu_factors.h"

namespace cepe::ops {

bool takes_row_product(const at::Tensor& x, const at::Tensor& weight) {
  return are_gpu_factors(x, weight) && x.size(-1) % 8 == 0 && weight.size(0) > 0 &&
         x.numel() <= cuda::most_row_product_values && x.numel() / x.size(-1) <= cuda::most_row_product_rows;
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
