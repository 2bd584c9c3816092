#include "ops/head_product.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>

#include "ops/cuda/loaded.h"
#include "ops/fused.h"

namespace cepe::ops {
namespace {

// The kernels, where they take these.
const cuda::CudaKernels* kernels_for(const at::Tensor& x, const at::Tensor& weight, int64_t groups) {
  const cuda::CudaKernels* kernels = x.is_cuda() ? cuda::kernels() : nullptr;
  if (!kernels || x.dim() != 3 || weight.dim() != 2 || x.numel() == 0) return nullptr;
  const auto dense = [&](const at::Tensor& tensor) {
    return is_plain_dense(tensor, at::kBFloat16, x.device()) && is_aligned(tensor);
  };
  const int64_t rows = x.size(0) * (x.size(1) / groups), of_group = weight.size(0) / groups;
  const bool taken = dense(x) && dense(weight) && x.size(2) % 8 == 0 && weight.size(1) % 8 == 0 && of_group % 8 == 0 &&
                     rows <= cuda::most_row_product_rows && rows * x.size(2) <= cuda::most_row_product_values;
  return taken ? kernels : nullptr;
}

// [B, H, K] -> [G, B * H/G, K], and back.
at::Tensor by_group(const at::Tensor& x, int64_t groups) {
  return x.reshape({x.size(0), groups, -1, x.size(2)}).transpose(0, 1).reshape({groups, -1, x.size(2)});
}
at::Tensor by_row(const at::Tensor& y, int64_t batch) {
  return y.reshape({y.size(0), batch, -1, y.size(2)}).transpose(0, 1).reshape({batch, -1, y.size(2)});
}

// x [B, H, K], matrices [G, K, N] -> [B, H, N]: a group's rows with its matrix.
at::Tensor products_of_groups(const at::Tensor& x, const at::Tensor& matrices, int64_t groups) {
  if (x.size(1) != groups || at::GradMode::is_enabled())
    return by_row(at::bmm(by_group(x, groups), matrices), x.size(0));
  at::Tensor y = at::empty({x.size(0), groups, matrices.size(2)}, x.options());  // where they belong: no copy after it
  at::Tensor by_head = y.transpose(0, 1);
  at::bmm_out(by_head, x.transpose(0, 1), matrices);
  return y;
}

}  // namespace

at::Tensor head_product(const at::Tensor& x, const at::Tensor& weight, int64_t groups) {
  const at::Tensor matrices = weight.reshape({groups, -1, weight.size(1)});  // [G, D, K]
  const cuda::CudaKernels* kernels = kernels_for(x, weight, groups);
  if (!kernels) return products_of_groups(x, matrices.transpose(1, 2), groups);
  at::Tensor y = at::empty({x.size(0), x.size(1), matrices.size(1)}, x.options());
  cuda::check(kernels->row_product({.x = x.const_data_ptr(),
                                    .weight = weight.const_data_ptr(),
                                    .y = y.mutable_data_ptr(),
                                    .rows = x.size(0) * (x.size(1) / groups),
                                    .inputs = weight.size(1),
                                    .outputs = weight.size(0),
                                    .groups = groups,
                                    .heads = x.size(1) / groups,
                                    .device = x.device().index()}),
              "head_product");
  return y;
}

at::Tensor transposed_head_product(const at::Tensor& x, const at::Tensor& weight, int64_t groups) {
  const at::Tensor matrices = weight.reshape({groups, -1, weight.size(1)});  // [G, D, E]
  const cuda::CudaKernels* kernels = kernels_for(x, weight, groups);
  if (!kernels) return products_of_groups(x, matrices, groups);
  at::Tensor y = at::empty({x.size(0), x.size(1), weight.size(1)}, x.options());
  cuda::check(kernels->transposed_head_product({.x = x.const_data_ptr(),
                                                .weight = weight.const_data_ptr(),
                                                .y = y.mutable_data_ptr(),
                                                .rows = x.size(0) * (x.size(1) / groups),
                                                .inputs = weight.size(0),
                                                .outputs = weight.size(1),
                                                .groups = groups,
                                                .heads = x.size(1) / groups,
                                                .device = x.device().index()}),
              "transposed_head_product");
  return y;
}

}  // namespace cepe::ops
