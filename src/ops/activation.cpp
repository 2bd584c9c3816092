#include "ops/activation.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/silu.h>

#include "base/error.h"
#include "ops/cpu/kernels.h"
#include "ops/cuda/loaded.h"
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

bool fits_on_gpu(const at::Tensor& gate_up) {
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
  if (kernel && whole && is_plain_dense(gate_up, gate_up.scalar_type())) return gated_fused(kernel, gate_up);
  const cuda::CudaKernels* gpu = gate_up.is_cuda() ? cuda::kernels() : nullptr;
  if (gpu && whole && fits_on_gpu(gate_up)) return gated_on_gpu(*gpu, activation, gate_up);
  return activate(activation, gate_up.narrow(-1, 0, width)) * gate_up.narrow(-1, width, width);
}

}  // namespace cepe::ops
