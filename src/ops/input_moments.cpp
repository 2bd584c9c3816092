#include "ops/input_moments.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/mm.h>

namespace cepe::ops {

void add_inputs(InputMoments& moments, const at::Tensor& x) {
  const at::NoGradGuard none;
  const at::Tensor rows = x.reshape({-1, x.size(-1)}).to(at::kFloat);
  if (moments.sums.defined()) {
    moments.sums.addmm_(rows.t(), rows);
  } else {
    moments.sums = at::mm(rows.t(), rows);
  }
  moments.rows += rows.size(0);
}

}  // namespace cepe::ops
