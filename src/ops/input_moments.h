// What calibration gathers of a product: how its inputs vary together.
#pragma once

#include <ATen/core/Tensor.h>

namespace cepe::ops {

// H = sum of x x^T over the inputs x seen.
struct InputMoments {
  at::Tensor sums;   // [in, in] float32, on the inputs' device; undefined before the first
  int64_t rows = 0;  // inputs seen
};

// x [..., in] of any float type: adds x^T x.
void add_inputs(InputMoments& moments, const at::Tensor& x);

}  // namespace cepe::ops
