#include "ops/norm_gradient.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include "ops/cpu/kernels.h"
#include "ops/cuda/loaded.h"
#include "ops/fused.h"

namespace cepe::ops {
namespace {

// Rows go to sums of their own in blocks whose bounds depend on the sizes alone, not on the threads: the same bits
// whatever the machine's load.
at::Tensor weight_gradient_on_cpu(cpu::Kernels::RmsNormBackward kernel, const cpu::RmsNormGradient& run, int64_t rows) {
  constexpr int64_t most_blocks = 64, least_rows = 64;
  const int64_t block = std::max(least_rows, (rows + most_blocks - 1) / most_blocks);
  const int64_t blocks = std::max<int64_t>(1, (rows + block - 1) / block);
  at::Tensor sums = at::zeros({blocks, run.width}, at::kFloat);
  auto* to = sums.mutable_data_ptr<float>();
  over_rows(blocks, run.width * block, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      kernel(run, i * block, std::min(rows, (i + 1) * block), to + i * run.width);
    }
  });
  at::Tensor total = sums[0];
  for (int64_t i = 1; i < blocks; ++i) total.add_(sums[i]);
  return total;
}

RmsNormGradients on_cpu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& y_gradient, double eps,
                        bool unit_offset, bool wants_x, bool wants_weight) {
  RmsNormGradients gradients;
  if (wants_x) gradients.x = empty_output(x.sizes(), x.scalar_type());
  const cpu::RmsNormGradient run{.x = x.const_data_ptr(),
                                 .weight = weight.const_data_ptr(),
                                 .y_gradient = y_gradient.const_data_ptr(),
                                 .x_gradient = wants_x ? gradients.x.mutable_data_ptr() : nullptr,
                                 .width = x.size(-1),
                                 .eps = static_cast<float>(eps),
                                 .unit_offset = unit_offset};
  const auto& table = cpu::kernels();
  const auto kernel = x.scalar_type() == at::kFloat ? table.rms_norm_backward_float : table.rms_norm_backward_bfloat16;
  const int64_t rows = x.numel() / run.width;
  if (wants_weight) {
    gradients.weight = weight_gradient_on_cpu(kernel, run, rows).to(weight.scalar_type());
  } else {
    over_rows(rows, run.width, [&](int64_t begin, int64_t end) { kernel(run, begin, end, nullptr); });
  }
  return gradients;
}

RmsNormGradients gradients_on_gpu(const cuda::CudaKernels& kernels, const at::Tensor& x, const at::Tensor& weight,
                                  const at::Tensor& y_gradient, double eps, bool unit_offset, bool wants_x,
                                  bool wants_weight) {
  RmsNormGradients gradients;
  if (wants_x) gradients.x = at::empty_like(x);
  const int64_t width = x.size(-1), rows = x.numel() / width;
  at::Tensor sums;
  if (wants_weight) {
    gradients.weight = at::empty_like(weight);
    sums = at::empty({cuda::rms_norm_weight_sums(rows, width), width}, x.options().dtype(at::kFloat));
  }
  cuda::check(
      kernels.rms_norm_gradient({.x = x.const_data_ptr(),
                                 .weight = weight.const_data_ptr(),
                                 .y_gradient = y_gradient.const_data_ptr(),
                                 .x_gradient = wants_x ? gradients.x.mutable_data_ptr() : nullptr,
                                 .weight_gradient = wants_weight ? gradients.weight.mutable_data_ptr() : nullptr,
                                 .weight_sums = wants_weight ? sums.mutable_data_ptr<float>() : nullptr,
                                 .rows = rows,
                                 .width = width,
                                 .eps = static_cast<float>(eps),
                                 .unit_offset = unit_offset,
                                 .bfloat16 = x.scalar_type() == at::kBFloat16,
                                 .device = x.device().index()}),
      "rms_norm_gradient");
  return gradients;
}

}  // namespace

bool has_rms_norm_gradient(const at::Tensor& x, const at::Tensor& weight) {
  if (x.dim() == 0 || x.size(-1) == 0 || weight.dim() != 1 || weight.size(0) != x.size(-1)) return false;
  const at::Device device = x.device();
  const bool suit = suits_kernels(x, x.scalar_type(), device) && suits_kernels(weight, x.scalar_type(), device);
  if (!suit || !weight.is_contiguous()) return false;
  if (device.is_cpu()) return true;
  return device.is_cuda() && cuda::kernels() && x.numel() > 0 && x.numel() <= cuda::most_elements &&
         x.size(-1) <= cuda::widest_rms_norm_gradient;
}

RmsNormGradients rms_norm_gradient(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& y_gradient,
                                   double eps, bool unit_offset, bool wants_x, bool wants_weight) {
  if (!wants_x && !wants_weight) return {};
  if (x.is_cpu()) return on_cpu(x, weight, y_gradient, eps, unit_offset, wants_x, wants_weight);
  return gradients_on_gpu(*cuda::kernels(), x, weight, y_gradient, eps, unit_offset, wants_x, wants_weight);
}

}  // namespace cepe::ops
