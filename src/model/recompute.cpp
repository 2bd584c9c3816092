#include "model/recompute.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

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
                               const variable_list& inputs) {
    context->save_for_backward(inputs);
    context->saved_data["body"] = c10::IValue::make_capsule(c10::make_intrusive<BlockHolder>(*body));
    std::vector<bool> wanted;
    for (const at::Tensor& input : inputs) wanted.push_back(input.requires_grad());
    context->saved_data["wanted"] = wanted;
    const at::NoGradGuard none;
    return {(*body)({inputs.begin(), inputs.end() - 1})};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto body = c10::static_intrusive_pointer_cast<BlockHolder>(context->saved_data["body"].toCapsule());
    const auto wanted = context->saved_data["wanted"].toBoolList();
    std::vector<at::Tensor> inputs;
    for (const at::Tensor& saved : context->get_saved_variables())
      inputs.push_back(saved.detach().requires_grad_(wanted.get(inputs.size())));
    inputs.pop_back();  // the token
    {
      const at::AutoGradMode enabled(true);
      torch::autograd::backward({body->body(inputs)}, gradients);
    }
    variable_list found = {at::Tensor()};
    for (const at::Tensor& input : inputs) found.push_back(input.grad());
    found.emplace_back();
    return found;
  }
};

}  // namespace

at::Tensor recomputed(const Block& body, const std::vector<at::Tensor>& inputs) {
  if (!at::GradMode::is_enabled()) return body(inputs);
  // A leaf that body reads is not among the inputs, and may be all that is differentiated: the token says so.
  variable_list all(inputs.begin(), inputs.end());
  all.push_back(at::zeros({1}).requires_grad_());
  return Recomputed::apply(std::make_shared<Block>(body), all).front();
}

}  // namespace cepe::model
