#include "ops/activation.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/silu.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/error.h"
#include "ops/cpu/kernels.h"
#include "ops/cuda/loaded.h"
#include "ops/first_order.h"
#include "ops/fused.h"

namespace cepe::ops {
namespace {

// None for the exact gelu: its erf stays LibTorch's.
cpu::Kernels::Gated fused_kernel(Activation activation, at::ScalarType type) {
  const auto& table = cpu::kernels();
  const bool wide = type == at::kFloat;
  switch (activation) {
    case Activation::silu:
      return wide ? table.silu_float : table.silu_bfloat16;
    case Activation::gelu_tanh:
      return wide ? table.gelu_tanh_float : table.gelu_tanh_bfloat16;
    case Activation::relu:
      return wide ? table.relu_float : table.relu_bfloat16;
    case Activation::gelu:
      break;
  }
  return nullptr;
}

at::DimVector output_sizes(const at::Tensor& gate_up) {
  at::DimVector sizes(gate_up.sizes());
  sizes.back() /= 2;
  return sizes;
}

at::Tensor gated_fused(cpu::Kernels::Gated kernel, const at::Tensor& gate_up) {
  const int64_t width = gate_up.size(-1) / 2;
  at::Tensor y = empty_output(output_sizes(gate_up), gate_up.scalar_type());
  const int64_t bytes = width * static_cast<int64_t>(y.element_size());
  const auto* from = static_cast<const std::byte*>(gate_up.const_data_ptr());
  auto* to = static_cast<std::byte*>(y.mutable_data_ptr());
  over_rows(y.numel() / width, width, [&](int64_t begin, int64_t end) {
    kernel(from + begin * 2 * bytes, to + begin * bytes, end - begin, width);
  });
  return y;
}

bool gate_fits_on_gpu(const at::Tensor& gate_up) {
  return gate_up.numel() > 0 && gate_up.numel() <= cuda::most_elements &&
         is_plain_dense(gate_up, gate_up.scalar_type(), gate_up.device());
}

at::Tensor gated_on_gpu(const cuda::CudaKernels& kernels, Activation activation, const at::Tensor& gate_up) {
  at::Tensor y = at::empty(output_sizes(gate_up), gate_up.options());
  cuda::check(kernels.gated({.gate_up = gate_up.const_data_ptr(),
                             .y = y.mutable_data_ptr(),
                             .rows = y.numel() / y.size(-1),
                             .width = y.size(-1),
                             .activation = activation,
                             .bfloat16 = y.scalar_type() == at::kBFloat16,
                             .device = y.device().index()}),
              "gated");
  return y;
}

bool has_silu_gradient(const at::Tensor& gate_up) {
  if (!suits_kernels(gate_up, gate_up.scalar_type(), gate_up.device())) return false;
  if (gate_up.is_cpu()) return true;
  return gate_up.is_cuda() && cuda::kernels() && gate_up.numel() > 0 && gate_up.numel() <= cuda::most_elements;
}

at::Tensor silu_gradient_on_cpu(const at::Tensor& gate_up, const at::Tensor& y_gradient) {
  at::Tensor result = empty_output(gate_up.sizes(), gate_up.scalar_type());
  const auto& table = cpu::kernels();
  const bool single = gate_up.scalar_type() == at::kFloat;
  const auto kernel = single ? table.silu_backward_float : table.silu_backward_bfloat16;
  const int64_t width = gate_up.size(-1) / 2;
  const int64_t bytes = width * static_cast<int64_t>(gate_up.element_size());
  const auto* from = static_cast<const std::byte*>(gate_up.const_data_ptr());
  const auto* gradient = static_cast<const std::byte*>(y_gradient.const_data_ptr());
  auto* to = static_cast<std::byte*>(result.mutable_data_ptr());
  over_rows(y_gradient.numel() / width, 2 * width, [&](int64_t begin, int64_t end) {
    kernel(from + begin * 2 * bytes, gradient + begin * bytes, to + begin * 2 * bytes, end - begin, width);
  });
  return result;
}

at::Tensor silu_gradient_on_gpu(const cuda::CudaKernels& kernels, const at::Tensor& gate_up,
                                const at::Tensor& y_gradient) {
  at::Tensor result = at::empty_like(gate_up);
  cuda::check(kernels.gated_silu_gradient({.gate_up = gate_up.const_data_ptr(),
                                           .y_gradient = y_gradient.const_data_ptr(),
                                           .gate_up_gradient = result.mutable_data_ptr(),
                                           .rows = y_gradient.numel() / y_gradient.size(-1),
                                           .width = y_gradient.size(-1),
                                           .bfloat16 = result.scalar_type() == at::kBFloat16,
                                           .device = result.device().index()}),
              "gated_silu_gradient");
  return result;
}

// Keeps gate_up alone, not what silu made of it.
struct GatedSilu : torch::autograd::Function<GatedSilu> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& gate_up) {
    context->save_for_backward({gate_up});
    return gated(Activation::silu, gate_up);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    refuse_second_derivative("gated silu");
    const at::Tensor gate_up = context->get_saved_variables()[0], y_gradient = gradients[0].contiguous();
    return {gate_up.is_cpu() ? silu_gradient_on_cpu(gate_up, y_gradient)
                             : silu_gradient_on_gpu(*cuda::kernels(), gate_up, y_gradient)};
  }
};

}  // namespace

at::Tensor activate(Activation activation, const at::Tensor& x) {
  switch (activation) {
    case Activation::silu:
      return at::silu(x);
    case Activation::gelu:
      return at::gelu(x);
    case Activation::gelu_tanh:
      return at::gelu(x, "tanh");
    case Activation::relu:
      return at::relu(x);
  }
  throw base::Error(base::ErrorCode::internal, "unknown activation");
}

at::Tensor gated(Activation activation, const at::Tensor& gate_up) {
  const int64_t width = gate_up.size(-1) / 2;
  const cpu::Kernels::Gated kernel = fused_kernel(activation, gate_up.scalar_type());
  const bool whole = gate_up.size(-1) % 2 == 0 && width > 0;
  if (whole && activation == Activation::silu && is_differentiated(gate_up) && has_silu_gradient(gate_up)) {
    return GatedSilu::apply(gate_up.contiguous());
  }
  if (kernel && whole && is_plain_dense(gate_up, gate_up.scalar_type())) return gated_fused(kernel, gate_up);
  const cuda::CudaKernels* gpu = gate_up.is_cuda() ? cuda::kernels() : nullptr;
  if (gpu && whole && gate_fits_on_gpu(gate_up)) return gated_on_gpu(*gpu, activation, gate_up);
  return activate(activation, gate_up.narrow(-1, 0, width)) * gate_up.narrow(-1, width, width);
}

}  // namespace cepe::ops
