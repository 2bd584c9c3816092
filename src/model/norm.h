// The norm of a block: RMSNorm (with or without Gemma's unit offset) or LayerNorm.
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>

#include "model/config.h"

namespace cepe::model {

struct Norm {
  at::Tensor weight;  // [C]; undefined = this place has no norm
  at::Tensor bias;    // [C] or undefined
  double eps = 1e-6;
  NormKind kind = NormKind::rms;

  explicit operator bool() const { return weight.defined(); }
};

// The residual stream of a pass: what a block adds is merged with the next norm, in one pass over memory on a GPU.
class ResidualStream {
 public:
  explicit ResidualStream(at::Tensor hidden) : hidden_(std::move(hidden)) {}
  void add(at::Tensor added);
  const at::Tensor& hidden();           // [N, C], everything added
  at::Tensor normed(const Norm& norm);  // of it; itself where there is no norm

 private:
  at::Tensor hidden_, pending_;
};

// x [..., C] -> [..., C] of x's type.
at::Tensor forward(const Norm& norm, const at::Tensor& x);

}  // namespace cepe::model
