#include "model/norm.h"

#include <ATen/TensorOperators.h>

#include "ops/norm.h"

namespace cepe::model {

at::Tensor forward(const Norm& norm, const at::Tensor& x) {
  if (norm.kind == NormKind::layer) return ops::layer_norm(x, norm.weight, norm.bias, norm.eps);
  return ops::rms_norm(x, norm.weight, norm.eps, norm.kind == NormKind::rms_unit_offset);
}

void ResidualStream::add(at::Tensor added) {
  hidden();
  pending_ = std::move(added);
}

const at::Tensor& ResidualStream::hidden() {
  if (pending_.defined()) hidden_ = hidden_ + pending_;
  pending_.reset();
  return hidden_;
}

at::Tensor ResidualStream::normed(const Norm& norm) {
  if (!norm) return hidden();
  if (!pending_.defined() || norm.kind == NormKind::layer) return forward(norm, hidden());
  ops::SumAndNorm both =
      ops::add_rms_norm(hidden_, pending_, norm.weight, norm.eps, norm.kind == NormKind::rms_unit_offset);
  hidden_ = std::move(both.sum);
  pending_.reset();
  return std::move(both.normed);
}

}  // namespace cepe::model
