#include "ops/tuned_product.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>

#include <bit>
#include <cstdint>
#include <vector>

#include "ops/gpu_factors.h"
#include "ops/row_product.h"

namespace cepe::ops {
namespace {

int64_t rows_alike_of(const at::Tensor& x, const at::Tensor& weight) {
  return rows_alike(x.numel() / weight.size(1), weight.size(1), weight.size(0));
}

constexpr uintptr_t alignment = 256;  // what the library takes for granted

bool may_be_tuned(const at::Tensor& x, const at::Tensor& weight) {
  return are_gpu_factors(x, weight, alignment) && rows_alike_of(x, weight) > 0;
}

// Whether y was written.
bool multiplied(const at::Tensor& y, const at::Tensor& x, const at::Tensor& weight) {
  return cuda::kernels()->tuned_product({.x = x.const_data_ptr(),
                                         .weight = weight.const_data_ptr(),
                                         .y = y.mutable_data_ptr(),
                                         .rows = x.numel() / weight.size(1),
                                         .inputs = weight.size(1),
                                         .outputs = weight.size(0),
                                         .rows_alike = rows_alike_of(x, weight),
                                         .device = x.device().index()});
}

}  // namespace

int64_t rows_alike(int64_t rows, int64_t inputs, int64_t outputs) {
  constexpr int64_t few = 64, cached_values = int64_t{1} << 25;  // 64 MiB; a GPU's second-level cache has 50
  constexpr int64_t least_products = int64_t{1} << 33, many_values = int64_t{1} << 25, together = 1024;
  if (inputs % 8 != 0 || outputs % 8 != 0) return 0;
  if (rows <= few) return inputs * outputs < cached_values ? 0 : (rows + 15) / 16;
  if (rows * inputs * outputs < least_products) return 0;
  if (rows * outputs >= many_values) return static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(rows)));
  return rows % together == 0 ? rows : 0;
}

at::Tensor tuned_product(const at::Tensor& x, const at::Tensor& weight) {
  if (takes_row_product(x, weight)) return row_product(x, weight);
  if (may_be_tuned(x, weight)) {
    std::vector<int64_t> shape = x.sizes().vec();
    shape.back() = weight.size(0);
    at::Tensor y = at::empty(shape, x.options());
    if (multiplied(y, x, weight)) return y;
  }
  return at::linear(x, weight);
}

void tuned_product_into(const at::Tensor& y, const at::Tensor& x, const at::Tensor& weight) {
  if (may_be_tuned(x, weight) && is_plain_dense(y, at::kBFloat16, x.device()) && is_aligned(y, alignment) &&
      multiplied(y, x, weight))
    return;
  at::Tensor place = y;
  at::mm_out(place, x, weight.t());
}

}  // namespace cepe::ops
