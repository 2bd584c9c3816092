// Activation checkpointing (arXiv 1604.06174): what a block computes is forgotten after the forward pass and computed
// again in the backward pass.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace cepe::model {

// body(inputs), keeping nothing but the inputs. Gradients flow to the inputs and to every leaf that body reads. body
// must compute the same each time. Where no input is differentiated this is body(inputs) as it is: the first block
// above frozen ones keeps its activations.
using Block = std::function<at::Tensor(const std::vector<at::Tensor>& inputs)>;
at::Tensor recomputed(const Block& body, const std::vector<at::Tensor>& inputs);

}  // namespace cepe::model
