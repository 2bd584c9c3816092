#include "model/feed_forward.h"

#include "ops/activation.h"

namespace cepe::model {

at::Tensor forward(const FeedForward& block, const at::Tensor& x, ops::Activation activation, bool gated) {
  const at::Tensor hidden = forward(block.gate_up, x);
  return forward(block.down, gated ? ops::gated(activation, hidden) : ops::activate(activation, hidden));
}

}  // namespace cepe::model
