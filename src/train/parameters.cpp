#include "train/parameters.h"

#include <functional>

#include "base/error.h"
#include "model/low_rank.h"

namespace cepe::train {
namespace {

using Named = std::function<void(const std::string&, at::Tensor&)>;

// `leaves` are the tensors as they are kept, `named` visits the published weights, which are leaves or rows of them.
std::vector<Parameter> collect(const std::vector<at::Tensor>& leaves, const std::function<void(const Named&)>& named,
                               Parameter::Group group) {
  std::vector<Parameter> parameters;
  for (const at::Tensor& leaf : leaves) parameters.push_back({leaf.requires_grad_(), {}, group});
  named([&](const std::string& name, at::Tensor& weight) {
    for (Parameter& parameter : parameters) {
      if (!parameter.value.storage().is_alias_of(weight.storage())) continue;
      const int64_t row = parameter.value.dim() > 1 ? parameter.value.stride(0) : 1;
      parameter.parts.push_back(
          {name, (weight.storage_offset() - parameter.value.storage_offset()) / row, weight.size(0)});
      return;
    }
    throw base::Error(base::ErrorCode::internal, "weight '" + name + "' is no part of what is trained");
  });
  for (const Parameter& parameter : parameters) {
    if (parameter.parts.empty()) throw base::Error(base::ErrorCode::internal, "a trained weight without a name");
  }
  return parameters;
}

}  // namespace

std::vector<Parameter> encoder_parameters(model::Encoder& encoder, const std::string& prefix) {
  std::vector<at::Tensor> leaves;
  visit_parameters(encoder, [&](at::Tensor& leaf) { leaves.push_back(leaf); });
  return collect(
      leaves, [&](const Named& visitor) { visit(encoder, prefix, visitor); }, Parameter::Group::encoder);
}

std::vector<Parameter> cross_attention_parameters(model::Adapter& adapter) {
  std::vector<at::Tensor> leaves;
  const auto each = [&](const Named& visitor) {
    for (size_t i = 0; i < adapter.cross_attention.size(); ++i) {
      if (adapter.cross_attention[i])
        visit(*adapter.cross_attention[i], "model.layers." + std::to_string(i) + ".cross_attn.", visitor);
    }
  };
  each([&](const std::string&, at::Tensor& leaf) { leaves.push_back(leaf); });
  return collect(leaves, each, Parameter::Group::cross_attention);
}

std::vector<Parameter> masked_language_model_parameters(model::MaskedLanguageModel& model) {
  std::vector<at::Tensor> leaves;
  visit_parameters(model, [&](at::Tensor& leaf) { leaves.push_back(leaf); });
  return collect(
      leaves, [&](const Named& visitor) { visit(model, visitor); }, Parameter::Group::encoder);
}

std::vector<Parameter> decoder_parameters(model::Decoder& decoder) {
  std::vector<at::Tensor> leaves;
  const auto each = [&](const Named& visitor) { visit(decoder, visitor); };
  each([&](const std::string&, at::Tensor& leaf) { leaves.push_back(leaf); });
  return collect(leaves, each, Parameter::Group::decoder);
}

std::vector<Parameter> low_rank_parameters(model::Decoder& decoder) {
  std::vector<at::Tensor> leaves;
  const auto each = [&](const Named& visitor) { visit_low_rank(decoder, visitor); };
  each([&](const std::string&, at::Tensor& leaf) { leaves.push_back(leaf); });
  return collect(leaves, each, Parameter::Group::low_rank);
}

int64_t count(const std::vector<Parameter>& parameters) {
  int64_t total = 0;
  for (const Parameter& parameter : parameters) total += parameter.value.numel();
  return total;
}

}  // namespace cepe::train
