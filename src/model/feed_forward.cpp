#include "model/feed_forward.h"

#include "ops/activation.h"
#include "ops/fused_product.h"

namespace cepe::model {

at::Tensor forward(const FeedForward& block, const at::Tensor& x, ops::Activation activation, bool gated) {
  if (gated && is_plain_product(block.gate_up, x))
    return forward(block.down, ops::gated_product(activation, x, block.gate_up.weight));
  const at::Tensor hidden = forward(block.gate_up, x);
  return forward(block.down, gated ? ops::gated(activation, hidden) : ops::activate(activation, hidden));
}

}  // namespace cepe::model
