// Element-wise activations of the feed-forward blocks.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/activation_kind.h"

namespace cepe::ops {

at::Tensor activate(Activation activation, const at::Tensor& x);

// activate(gate) * up for gate_up [..., 2F] = [gate | up] -> [..., F]. One pass over memory where nothing is
// differentiated; with silu its first derivative is one pass too.
at::Tensor gated(Activation activation, const at::Tensor& gate_up);

}  // namespace cepe::ops
