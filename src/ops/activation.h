// Element-wise activations of the feed-forward blocks.
#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>

namespace cepe::ops {

enum class Activation { silu, gelu, gelu_tanh, relu };

// By its name in config.json ("silu", "gelu", "gelu_new", "gelu_pytorch_tanh", ...). Errors: unsupported, naming it.
Activation activation_named(std::string_view name);
at::Tensor activate(Activation activation, const at::Tensor& x);

// activate(gate) * up for gate_up [..., 2F] = [gate | up] -> [..., F]. One pass over memory on the CPU.
at::Tensor gated(Activation activation, const at::Tensor& gate_up);

}  // namespace cepe::ops
