#include "ops/rotary.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include "ops/cpu/kernels.h"
#include "ops/cuda/loaded.h"
#include "ops/fused.h"

namespace cepe::ops {
namespace {

bool fits(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, at::Device device = at::kCPU) {
  if (x.dim() != 3 || cos.dim() != 2 || cos.size(0) != x.size(0) || sin.sizes() != cos.sizes()) return false;
  return is_plain(x, x.scalar_type(), device) && x.stride(2) == 1 && 2 * cos.size(1) <= x.size(2) &&
         is_plain_dense(cos, at::kFloat, device) && is_plain_dense(sin, at::kFloat, device);
}
bool fits_on_gpu(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  return x.numel() > 0 && x.numel() <= cuda::most_elements && fits(x, cos, sin, x.device());
}

// x may be a slice of fused q, k, v: any stride between rows and heads.
at::Tensor rotate_fused(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  at::Tensor y = empty_output(x.sizes(), x.scalar_type());
  const cpu::RotaryRows run{.x = x.const_data_ptr(),
                            .y = y.mutable_data_ptr(),
                            .cos = cos.const_data_ptr<float>(),
                            .sin = sin.const_data_ptr<float>(),
                            .heads = x.size(1),
                            .width = x.size(2),
                            .half = cos.size(1),
                            .row_stride = x.stride(0),
                            .head_stride = x.stride(1)};
  const auto& table = cpu::kernels();
  const auto kernel = x.scalar_type() == at::kFloat ? table.rotate_float : table.rotate_bfloat16;
  over_rows(x.size(0), run.heads * run.width, [&](int64_t begin, int64_t end) { kernel(run, begin, end); });
  return y;
}

at::Tensor rotate_on_gpu(const cuda::CudaKernels& kernels, const at::Tensor& x, const at::Tensor& cos,
                         const at::Tensor& sin) {
  at::Tensor y = at::empty(x.sizes(), x.options());
  cuda::check(kernels.rotate({.x = x.const_data_ptr(),
                              .y = y.mutable_data_ptr(),
                              .cos = cos.const_data_ptr<float>(),
                              .sin = sin.const_data_ptr<float>(),
                              .rows = x.size(0),
                              .heads = x.size(1),
                              .width = x.size(2),
                              .half = cos.size(1),
                              .row_stride = x.stride(0),
                              .head_stride = x.stride(1),
                              .bfloat16 = x.scalar_type() == at::kBFloat16,
                              .device = x.device().index()}),
              "rotate");
  return y;
}

}  // namespace

at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  if (fits(x, cos, sin)) return rotate_fused(x, cos, sin);
  const cuda::CudaKernels* gpu = x.is_cuda() ? cuda::kernels() : nullptr;
  if (gpu && fits_on_gpu(x, cos, sin)) return rotate_on_gpu(*gpu, x, cos, sin);
  const int64_t half = cos.size(-1);
  const at::Tensor c = cos.unsqueeze(1).to(x.scalar_type());
  const at::Tensor s = sin.unsqueeze(1).to(x.scalar_type());
  const at::Tensor x1 = x.narrow(-1, 0, half);
  const at::Tensor x2 = x.narrow(-1, half, half);
  const at::Tensor rotated1 = x1 * c - x2 * s;
  const at::Tensor rotated2 = x2 * c + x1 * s;
  const int64_t rest = x.size(-1) - 2 * half;
  if (rest == 0) return at::cat({rotated1, rotated2}, -1);
  return at::cat({rotated1, rotated2, x.narrow(-1, 2 * half, rest)}, -1);
}

}  // namespace cepe::ops
