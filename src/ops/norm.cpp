#include "ops/norm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/rsqrt.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ops/cpu/kernels.h"
#include "ops/cuda/loaded.h"
#include "ops/first_order.h"
#include "ops/fused.h"
#include "ops/norm_gradient.h"

namespace cepe::ops {
namespace {

bool norm_fits(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, at::Device device = at::kCPU) {
  if (x.dim() == 0 || x.size(-1) == 0) return false;
  const auto plain = [&](const at::Tensor& tensor) { return is_plain_dense(tensor, x.scalar_type(), device); };
  const auto vector = [&](const at::Tensor& values) { return values.dim() == 1 && values.size(0) == x.size(-1); };
  return plain(x) && plain(weight) && plain(bias) && vector(weight) && (!bias.defined() || vector(bias));
}

bool norm_fits_on_gpu(const at::Tensor& x, const at::Tensor& weight) {
  return x.numel() > 0 && x.numel() <= cuda::most_elements && norm_fits(x, weight, {}, x.device()) &&
         x.size(-1) <= cuda::widest_rms_norm;
}

SumAndNorm add_rms_norm_on_gpu(const cuda::CudaKernels& kernels, const at::Tensor& x, const at::Tensor& added,
                               const at::Tensor& weight, double eps, bool unit_offset) {
  at::Tensor y = at::empty_like(x), sum = added.defined() ? at::empty_like(x) : at::Tensor();
  cuda::check(kernels.rms_norm({.x = x.const_data_ptr(),
                                .added = added.defined() ? added.const_data_ptr() : nullptr,
                                .sum = added.defined() ? sum.mutable_data_ptr() : nullptr,
                                .weight = weight.const_data_ptr(),
                                .y = y.mutable_data_ptr(),
                                .rows = x.numel() / x.size(-1),
                                .width = x.size(-1),
                                .eps = static_cast<float>(eps),
                                .unit_offset = unit_offset,
                                .bfloat16 = x.scalar_type() == at::kBFloat16,
                                .device = x.device().index()}),
              "rms_norm");
  return {sum, y};
}

at::Tensor rms_norm_on_gpu(const cuda::CudaKernels& kernels, const at::Tensor& x, const at::Tensor& weight, double eps,
                           bool unit_offset) {
  return add_rms_norm_on_gpu(kernels, x, {}, weight, eps, unit_offset).normed;
}

// kernel(x, y, rows) with x and y moved to the first of its rows.
template <class Kernel>
at::Tensor over_last_dimension(const at::Tensor& x, const Kernel& kernel) {
  at::Tensor y = empty_output(x.sizes(), x.scalar_type());
  const int64_t width = x.size(-1);
  const int64_t row_bytes = width * static_cast<int64_t>(x.element_size());
  const auto* from = static_cast<const std::byte*>(x.const_data_ptr());
  auto* to = static_cast<std::byte*>(y.mutable_data_ptr());
  over_rows(x.numel() / width, width,
            [&](int64_t begin, int64_t end) { kernel(from + begin * row_bytes, to + begin * row_bytes, end - begin); });
  return y;
}

// Undefined where there is no kernel for these tensors.
at::Tensor rms_norm_fused(const at::Tensor& x, const at::Tensor& weight, double eps, bool unit_offset) {
  if (norm_fits(x, weight, {})) {
    const auto& table = cpu::kernels();
    const auto kernel = x.scalar_type() == at::kFloat ? table.rms_norm_float : table.rms_norm_bfloat16;
    return over_last_dimension(x, [&](const void* from, void* to, int64_t rows) {
      kernel(from, weight.const_data_ptr(), to, rows, x.size(-1), static_cast<float>(eps), unit_offset);
    });
  }
  const cuda::CudaKernels* gpu = x.is_cuda() ? cuda::kernels() : nullptr;
  if (gpu && norm_fits_on_gpu(x, weight)) return rms_norm_on_gpu(*gpu, x, weight, eps, unit_offset);
  return {};
}

at::Tensor rms_norm_composed(const at::Tensor& x, const at::Tensor& weight, double eps, bool unit_offset) {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor normed = wide * at::rsqrt(wide.square().mean(-1, true) + eps);
  if (unit_offset) return (normed * (1.0 + weight.to(at::kFloat))).to(x.scalar_type());
  return weight * normed.to(x.scalar_type());
}

// Keeps x alone: the gradient's pass over a row finds the row's scale again for nothing.
struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            double eps, bool unit_offset) {
    context->save_for_backward({x, weight});
    context->saved_data["eps"] = eps;
    context->saved_data["unit_offset"] = unit_offset;
    const at::Tensor y = rms_norm_fused(x, weight, eps, unit_offset);
    return y.defined() ? y : rms_norm_composed(x, weight, eps, unit_offset);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    refuse_second_derivative("rms_norm");
    const auto saved = context->get_saved_variables();
    const RmsNormGradients result = rms_norm_gradient(
        saved[0], saved[1], gradients[0].contiguous(), context->saved_data["eps"].toDouble(),
        context->saved_data["unit_offset"].toBool(), context->needs_input_grad(0), context->needs_input_grad(1));
    return {result.x, result.weight, {}, {}};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, bool unit_offset) {
  const bool differentiated = is_differentiated(x) || is_differentiated(weight);
  if (differentiated && has_rms_norm_gradient(x, weight)) {
    return RmsNorm::apply(x.contiguous(), weight, eps, unit_offset);
  }
  const at::Tensor y = differentiated ? at::Tensor() : rms_norm_fused(x, weight, eps, unit_offset);
  return y.defined() ? y : rms_norm_composed(x, weight, eps, unit_offset);
}

SumAndNorm add_rms_norm(const at::Tensor& x, const at::Tensor& added, const at::Tensor& weight, double eps,
                        bool unit_offset) {
  const bool differentiated = is_differentiated(x) || is_differentiated(added) || is_differentiated(weight);
  const cuda::CudaKernels* gpu = x.is_cuda() && !differentiated ? cuda::kernels() : nullptr;
  if (gpu && added.sizes() == x.sizes() && norm_fits_on_gpu(x, weight) &&
      is_plain_dense(added, x.scalar_type(), x.device()))
    return add_rms_norm_on_gpu(*gpu, x, added, weight, eps, unit_offset);
  const at::Tensor sum = x + added;
  return {sum, rms_norm(sum, weight, eps, unit_offset)};
}

at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps) {
  if (weight.defined() && norm_fits(x, weight, bias)) {
    const auto& table = cpu::kernels();
    const auto kernel = x.scalar_type() == at::kFloat ? table.layer_norm_float : table.layer_norm_bfloat16;
    return over_last_dimension(x, [&](const void* from, void* to, int64_t rows) {
      kernel(from, weight.const_data_ptr(), bias.defined() ? bias.const_data_ptr() : nullptr, to, rows, x.size(-1),
             static_cast<float>(eps));
    });
  }
  return at::layer_norm(x, {x.size(-1)}, weight, bias, eps);
}

}  // namespace cepe::ops
