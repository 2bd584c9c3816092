#include "ops/mixed_linear.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "distance.h"
#include "ops/cpu/kernels.h"

namespace cepe::ops {
namespace {

using test::distance;

// Sizes on both sides of one piece of the weight, and of the few rows that are taken as dot products.
TEST(MixedLinear, GivesTheProductOfTheWeightAsItIs) {
  at::manual_seed(3);
  const cpu::Level before = cpu::level();
  for (const cpu::Level level : {cpu::Level::portable, cpu::Level::avx2, cpu::Level::avx512}) {
    if (!cpu::choose_level(level)) continue;
    for (const int64_t rows : {0, 1, 6, 7, 70}) {
      for (const int64_t out : {1, 600, 1100}) {
        const at::Tensor x = at::randn({rows, 512}), weight = at::randn({out, 512}).to(at::kBFloat16);
        const at::Tensor y = mixed_linear(x, weight);
        ASSERT_EQ(y.sizes(), (at::IntArrayRef{rows, out}));
        EXPECT_EQ(y.scalar_type(), at::kFloat);
        if (rows == 0) continue;
        const bool exact = !multiplies_bfloat16() && rows > 6;
        EXPECT_LT(distance(y, at::linear(x, weight.to(at::kFloat))), exact ? 1e-6 : 1e-2) << rows << " x " << out;
      }
    }
  }
  cpu::choose_level(before);
}

TEST(MixedLinear, HandsGradientsThroughItsPieces) {
  const cpu::Level before = cpu::level();
  if (!cpu::choose_level(cpu::Level::avx2)) GTEST_SKIP() << "this processor lacks AVX2";
  const at::Tensor weight = at::randn({1100, 512}).to(at::kBFloat16), upstream = at::randn({8, 1100});
  at::Tensor x = at::randn({8, 512}).requires_grad_();
  mixed_linear(x, weight).backward(upstream);
  EXPECT_LT(distance(x.grad(), upstream.matmul(weight.to(at::kFloat))), 1e-6);
  cpu::choose_level(before);
}

}  // namespace
}  // namespace cepe::ops
