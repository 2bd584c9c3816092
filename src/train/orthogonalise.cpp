#include "train/orthogonalise.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>

namespace cepe::train {

at::Tensor orthogonalised(const at::Tensor& matrices) {
  const bool tall = matrices.size(1) > matrices.size(2);  // the smaller side first: less work
  at::Tensor x = tall ? matrices.transpose(1, 2) : matrices;
  x = x / (x.norm(2, at::IntArrayRef{1, 2}, true) + 1e-7);
  if (x.is_cuda()) x = x.to(at::kBFloat16);
  for (int step = 0; step < 5; ++step) {
    const at::Tensor square = at::bmm(x, x.transpose(1, 2));
    const at::Tensor quartic = at::baddbmm(square, square, square, -4.7750, 2.0315);
    x = at::baddbmm(x, quartic, x, 3.4445, 1);
  }
  return tall ? x.transpose(1, 2) : x;
}

at::Tensor rounded_stochastically(const at::Tensor& values, const at::Tensor& noise) {
  // bfloat16 is the upper half of a float32: noise below it carries over as often as the lower half is large.
  constexpr int64_t upper_half = -65536;  // 0xffff0000
  const at::Tensor bits = values.contiguous().view(at::kInt) + noise;
  return bits.bitwise_and(upper_half).view(at::kFloat).to(at::kBFloat16);
}

at::Tensor rounding_noise(const at::Tensor& values, uint64_t seed) {
  // Made on the CPU: the same bits on every device.
  at::Generator generator = at::detail::createCPUGenerator(seed);
  return at::empty(values.sizes(), at::kInt).random_(0, 65536, generator).to(values.device());
}

}  // namespace cepe::train
