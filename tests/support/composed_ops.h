// The operations of ops/ that have kernels, as compositions of ATen operations that autograd follows: what the kernels
// and their gradients are tested against. In float64 they round nowhere.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/rsqrt.h>

#include "ops/activation.h"

namespace cepe::test {

inline at::Tensor composed_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, bool unit_offset) {
  const at::ScalarType wide_type = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor wide = x.to(wide_type);
  const at::Tensor normed = wide * at::rsqrt(wide.square().mean(-1, true) + eps);
  if (unit_offset) return (normed * (1.0 + weight.to(wide_type))).to(x.scalar_type());
  return weight * normed.to(x.scalar_type());
}

inline at::Tensor composed_rotation(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const int64_t half = cos.size(-1), rest = x.size(-1) - 2 * half;
  const at::Tensor c = cos.unsqueeze(1).to(x.scalar_type()), s = sin.unsqueeze(1).to(x.scalar_type());
  const at::Tensor x1 = x.narrow(-1, 0, half), x2 = x.narrow(-1, half, half);
  return at::cat({x1 * c - x2 * s, x2 * c + x1 * s, x.narrow(-1, 2 * half, rest)}, -1);
}

inline at::Tensor composed_gated(ops::Activation activation, const at::Tensor& gate_up) {
  const int64_t width = gate_up.size(-1) / 2;
  return ops::activate(activation, gate_up.narrow(-1, 0, width)) * gate_up.narrow(-1, width, width);
}

}  // namespace cepe::test
