// What is trained: leaf tensors of a model, under their published names.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "model/cepe_model.h"
#include "model/masked_language_model.h"

namespace cepe::train {

// A published weight inside a leaf: fused weights are several, one under the other.
struct NamedRows {
  std::string name;
  int64_t first = 0, rows = 0;
};

struct Parameter {
  at::Tensor value;  // the leaf that the model multiplies with; requires_grad
  std::vector<NamedRows> parts;
  enum class Group { encoder, cross_attention, decoder, low_rank } group = Group::cross_attention;

  const std::string& name() const { return parts.front().name; }
};

// The leaves of a model, marked as trained (requires_grad). The tensors are shared with the model: writing into
// `value` trains it.
std::vector<Parameter> encoder_parameters(model::Encoder& encoder, const std::string& prefix);
std::vector<Parameter> cross_attention_parameters(model::Adapter& adapter);
std::vector<Parameter> masked_language_model_parameters(model::MaskedLanguageModel& model);
std::vector<Parameter> decoder_parameters(model::Decoder& decoder);
std::vector<Parameter> low_rank_parameters(model::Decoder& decoder);

int64_t count(const std::vector<Parameter>& parameters);  // of single weights

}  // namespace cepe::train
