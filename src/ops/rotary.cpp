#include "ops/rotary.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>

namespace cepe::ops {

at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const int64_t half = cos.size(-1);
  const at::Tensor c = cos.unsqueeze(1).to(x.scalar_type());
  const at::Tensor s = sin.unsqueeze(1).to(x.scalar_type());
  const at::Tensor x1 = x.narrow(-1, 0, half);
  const at::Tensor x2 = x.narrow(-1, half, half);
  const at::Tensor rotated1 = x1 * c - x2 * s;
  const at::Tensor rotated2 = x2 * c + x1 * s;
  const int64_t rest = x.size(-1) - 2 * half;
  if (rest == 0) return at::cat({rotated1, rotated2}, -1);
  return at::cat({rotated1, rotated2, x.narrow(-1, 2 * half, rest)}, -1);
}

}  // namespace cepe::ops
