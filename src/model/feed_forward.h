// The feed-forward block: down(activation(gate(x)) * up(x)), or down(activation(up(x))).
#pragma once

#include "model/linear.h"
#include "ops/activation_kind.h"

namespace cepe::model {

struct FeedForward {
  Linear gate_up;  // [gate; up] rows fused when gated, else up
  Linear down;
};

// x [N, C] -> [N, C].
at::Tensor forward(const FeedForward& block, const at::Tensor& x, ops::Activation activation, bool gated);

}  // namespace cepe::model
