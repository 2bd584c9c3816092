#include "model/norm.h"

#include "ops/norm.h"

namespace cepe::model {

at::Tensor forward(const Norm& norm, const at::Tensor& x) {
  if (norm.kind == NormKind::layer) return ops::layer_norm(x, norm.weight, norm.bias, norm.eps);
  return ops::rms_norm(x, norm.weight, norm.eps, norm.kind == NormKind::rms_unit_offset);
}

}  // namespace cepe::model
