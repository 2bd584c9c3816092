#include "ops/int8_rows.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>

#include <cstddef>
#include <vector>

#include "ops/cpu/kernels.h"

namespace cepe::ops {

bool is_int8_heads(const at::Tensor& cache, int64_t groups, int64_t width) {
  return is_int8_rows(cache) && cache.dim() == 3 && cache.size(1) == groups && cache.size(2) == width + 4 &&
         cache.stride(2) == 1 && cache.stride(1) == width + 4 && cache.stride(0) % 16 == 0;
}

at::Tensor empty_int8_heads(int64_t slots, int64_t groups, int64_t width, at::Device device) {
  const int64_t bytes = groups * (width + 4), stride = (bytes + 15) / 16 * 16;
  return at::empty({slots, stride}, at::TensorOptions(device).dtype(at::kByte))
      .narrow(1, 0, bytes)
      .unflatten(1, {groups, width + 4});
}

namespace {

at::Tensor int8_rows_on_cpu(const at::Tensor& given) {
  const at::Tensor dense = given.contiguous();
  const int64_t rows = dense.size(-2), width = dense.size(-1), page = rows * width;
  std::vector<int64_t> sizes = dense.sizes().vec();
  sizes.back() += 4;
  at::Tensor packed = at::empty(sizes, at::TensorOptions().dtype(at::kByte));
  const bool is_float = dense.scalar_type() == at::kFloat;
  const auto kernel = is_float ? cpu::kernels().int8_rows_float : cpu::kernels().int8_rows_bfloat16;
  const auto* from = static_cast<const std::byte*>(dense.const_data_ptr());
  auto* to = packed.mutable_data_ptr<uint8_t>();
  const int64_t pages = page > 0 ? dense.numel() / page : 0;
  for (int64_t i = 0; i < pages; ++i)
    kernel(from + i * page * static_cast<int64_t>(dense.itemsize()), to + i * rows * (width + 4), rows, width);
  return packed;
}

}  // namespace

at::Tensor int8_rows(const at::Tensor& dense) {
  if (dense.is_cpu() && dense.numel() > 0 &&
      (dense.scalar_type() == at::kFloat || dense.scalar_type() == at::kBFloat16))
    return int8_rows_on_cpu(dense);
  const at::Tensor values = dense.to(at::kFloat);
  const at::Tensor scales = values.abs().amax(-1, /*keepdim=*/true).div(127).clamp_min(1e-30);  // [.., S, 1]
  const at::Tensor rounded = values.div(scales).round().clamp(-127, 127).to(at::kChar);
  const at::Tensor parts[] = {rounded.contiguous().view(at::kByte).flatten(-2),
                              scales.contiguous().view(at::kByte).flatten(-2)};
  return at::cat(parts, -1).unflatten(-1, {dense.size(-2), dense.size(-1) + 4});
}

at::Tensor as_cached(const at::Tensor& rows, const at::Tensor& cache) {
  return is_int8_rows(cache) ? int8_rows(rows) : rows.to(cache.scalar_type());
}

at::Tensor unpacked_rows(const at::Tensor& rows, at::ScalarType type) {
  if (!is_int8_rows(rows)) return rows;
  const int64_t count = rows.size(-2), width = row_width(rows);
  const at::Tensor bytes = rows.flatten(-2);
  const at::Tensor values = bytes.narrow(-1, 0, count * width).view(at::kChar).unflatten(-1, {count, width});
  // A copy, since float32 must begin at a multiple of its size.
  const at::Tensor scale_bytes = bytes.narrow(-1, count * width, count * 4).clone(at::MemoryFormat::Contiguous);
  const at::Tensor scales = scale_bytes.view(at::kFloat).unflatten(-1, {count, 1});
  at::Tensor dense = at::empty(values.sizes(), values.options().dtype(type));
  return at::mul_out(dense, values, scales);
}

}  // namespace cepe::ops
