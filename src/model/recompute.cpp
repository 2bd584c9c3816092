#include "model/recompute.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <memory>

namespace cepe::model {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct BlockHolder : torch::CustomClassHolder {
  explicit BlockHolder(Block given) : body(std::move(given)) {}
  Block body;
};

struct Recomputed : torch::autograd::Function<Recomputed> {
  static variable_list forward(AutogradContext* context, const std::shared_ptr<Block>& body,
                               at::TensorList given) {  // as a list: Function looks for tensors in no vector
    const variable_list inputs = given.vec();
    context->save_for_backward(inputs);
    context->saved_data["body"] = c10::IValue::make_capsule(c10::make_intrusive<BlockHolder>(*body));
    std::vector<bool> wanted;
    for (const at::Tensor& input : inputs) wanted.push_back(input.requires_grad());
    context->saved_data["wanted"] = wanted;
    const at::NoGradGuard none;
    return {(*body)(inputs)};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto body = c10::static_intrusive_pointer_cast<BlockHolder>(context->saved_data["body"].toCapsule());
    const auto wanted = context->saved_data["wanted"].toBoolList();
    std::vector<at::Tensor> inputs;
    for (const at::Tensor& saved : context->get_saved_variables())
      inputs.push_back(saved.detach().requires_grad_(wanted.get(inputs.size())));
    {
      const at::AutoGradMode enabled(true);
      torch::autograd::backward({body->body(inputs)}, gradients);
    }
    variable_list found = {at::Tensor()};
    for (const at::Tensor& input : inputs) found.push_back(input.grad());
    return found;
  }
};

}  // namespace

at::Tensor recomputed(const Block& body, const std::vector<at::Tensor>& inputs) {
  const bool differentiated =
      std::any_of(inputs.begin(), inputs.end(), [](const at::Tensor& input) { return input.requires_grad(); });
  if (!at::GradMode::is_enabled() || !differentiated) return body(inputs);
  return Recomputed::apply(std::make_shared<Block>(body), at::TensorList(inputs)).front();
}

}  // namespace cepe::model
