// What products with something after them are on a CPU.
#include "ops/fused_product.h"

#include <ATen/ops/linear.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "ops/activation.h"
#include "ops/rotary.h"

namespace cepe::ops {
namespace {

TEST(FusedProduct, GatedIsTheProductAndThenTheGate) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = at::randn({2, 3, 40}, type), weight = at::randn({48, 40}, type);
    const at::Tensor found = gated_product(Activation::silu, x, weight);
    EXPECT_EQ(found.sizes(), (at::IntArrayRef{2, 3, 24}));
    EXPECT_TRUE(found.equal(gated(Activation::silu, at::linear(x, weight))));
  }
}

TEST(FusedProduct, GatedIsDifferentiable) {
  at::Tensor weight = at::randn({48, 40}).requires_grad_();
  gated_product(Activation::silu, at::randn({3, 40}), weight).sum().backward();
  EXPECT_EQ(weight.grad().sizes(), weight.sizes());
}

TEST(FusedProduct, RotatedIsTheProductAndThenTheRotationOfItsFirstHeads) {
  const at::Tensor x = at::randn({5, 40}), weight = at::randn({96, 40}), angles = at::rand({5, 8});
  const at::Tensor cos = angles.cos(), sin = angles.sin();
  const RotatedHeads found = rotated_product(x, weight, cos, sin, 4, 16);
  const at::Tensor heads = at::linear(x, weight).view({5, 6, 16});
  EXPECT_TRUE(found.rotated.equal(rotate(heads.narrow(1, 0, 4), cos, sin)));
  EXPECT_TRUE(found.others.equal(heads.narrow(1, 4, 2)));
}

}  // namespace
}  // namespace cepe::ops
