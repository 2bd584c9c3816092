// The encoder with its masked-language-modelling head (LlamaForMLM): dense -> activation -> RMSNorm -> output with
// bias.
#pragma once

#include <functional>
#include <string>

#include "model/encoder.h"

namespace cepe::model {

struct MaskedLanguageModel {
  Encoder encoder;
  Linear dense;   // lm_dense [E, E] with bias
  Norm norm;      // lm_layer_norm
  Linear output;  // lm_head [V, E] (tied to the embedding where the config says so) with bias lm_bias
};

// chunks [n, S] int64, mask [n, S] (non-zero = a real token) or undefined -> logits [n, S, V] float32.
at::Tensor forward(const MaskedLanguageModel& model, const at::Tensor& chunks, const at::Tensor& mask);

// Published names: "model.*", "lm_dense.{weight,bias}", "lm_layer_norm.weight", "lm_head.weight", "lm_bias".
void visit(MaskedLanguageModel& model, const std::function<void(const std::string&, at::Tensor&)>& visitor);

// As visit_parameters of the encoder: every trained tensor as it is kept.
void visit_parameters(MaskedLanguageModel& model, const std::function<void(at::Tensor&)>& visitor);

}  // namespace cepe::model
