#include "model/masked_language_model.h"

#include "ops/activation.h"

namespace cepe::model {
namespace {

bool is_tied(const MaskedLanguageModel& model) { return model.output.weight.is_same(model.encoder.embedding.weight); }

}  // namespace

at::Tensor forward(const MaskedLanguageModel& model, const at::Tensor& chunks, const at::Tensor& mask) {
  const at::Tensor states = forward(model.encoder, chunks, mask.defined() ? mask.ne(0) : mask);
  const at::Tensor hidden = ops::activate(model.encoder.config.activation, forward(model.dense, states));
  return forward(model.output, forward(model.norm, hidden)).to(at::kFloat);
}

void visit(MaskedLanguageModel& model, const std::function<void(const std::string&, at::Tensor&)>& visitor) {
  const bool tied = is_tied(model);  // asked before a visitor may put another table in the embedding's place
  visit(model.encoder, "model.", visitor);
  visitor("lm_dense.weight", model.dense.weight);
  visitor("lm_dense.bias", model.dense.bias);
  visitor("lm_layer_norm.weight", model.norm.weight);
  if (tied) {
    model.output.weight = model.encoder.embedding.weight;  // visited already
  } else {
    visitor("lm_head.weight", model.output.weight);
  }
  visitor("lm_bias", model.output.bias);
}

void visit_parameters(MaskedLanguageModel& model, const std::function<void(at::Tensor&)>& visitor) {
  const bool tied = is_tied(model);
  visit_parameters(model.encoder, visitor);
  visitor(model.dense.weight);
  visitor(model.dense.bias);
  visitor(model.norm.weight);
  if (tied) {
    model.output.weight = model.encoder.embedding.weight;
  } else {
    visitor(model.output.weight);
  }
  visitor(model.output.bias);
}

}  // namespace cepe::model
