#include "ops/activation.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/silu.h>

#include "base/error.h"

namespace cepe::ops {

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
  return activate(activation, gate_up.narrow(-1, 0, width)) * gate_up.narrow(-1, width, width);
}

}  // namespace cepe::ops
