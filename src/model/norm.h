// The norm of a block: RMSNorm (with or without Gemma's unit offset) or LayerNorm.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/config.h"

namespace cepe::model {

struct Norm {
  at::Tensor weight;  // [C]; undefined = this place has no norm
  at::Tensor bias;    // [C] or undefined
  double eps = 1e-6;
  NormKind kind = NormKind::rms;

  explicit operator bool() const { return weight.defined(); }
};

// x [..., C] -> [..., C] of x's type.
at::Tensor forward(const Norm& norm, const at::Tensor& x);

}  // namespace cepe::model
