// The fused CPU kernels against the compositions they stand in for. Their gradients: gradient_test.cpp.
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "composed_ops.h"
#include "distance.h"
#include "every_level.h"
#include "ops/activation.h"
#include "ops/cpu/kernels.h"
#include "ops/norm.h"
#include "ops/rotary.h"

namespace cepe::ops {
namespace {

using test::distance;

// A unit in the last place of bfloat16 where the float32 value lies on a rounding boundary, else equal.
double tolerance(at::ScalarType type) { return type == at::kFloat ? 1e-6 : 4e-3; }

// operation(x) at every level against composition(x).
template <class Operation, class Composition>
void expect_composition(const at::Tensor& x, const Operation& operation, const Composition& composition,
                        double same_share = 0.97) {
  const at::Tensor expected = composition(x);
  const cpu::Level before = cpu::level();
  for (const cpu::Level level : {cpu::Level::portable, cpu::Level::avx2, cpu::Level::avx512}) {
    if (!cpu::choose_level(level)) continue;
    SCOPED_TRACE("level " + std::to_string(static_cast<int>(level)) + " sizes " + c10::str(x.sizes()));
    const at::Tensor y = operation(x);
    EXPECT_EQ(y.sizes(), expected.sizes());
    ASSERT_EQ(y.scalar_type(), expected.scalar_type());
    EXPECT_LT(distance(y, expected), tolerance(x.scalar_type()));
    // In bfloat16 nearly every element is the same bit for bit: the roundings stand at the same places.
    const double same = (y == expected).to(at::kDouble).mean().item<double>();
    EXPECT_GE(same, x.scalar_type() == at::kBFloat16 ? same_share : 0.0);
  }
  cpu::choose_level(before);
}

const std::vector<at::ScalarType> types = {at::kFloat, at::kBFloat16};

TEST(Elementwise, RmsNormIsItsComposition) {
  at::manual_seed(1);
  for (const at::ScalarType type : types) {
    for (const int64_t width : {1, 7, 16, 33, 576, 4096}) {
      const at::Tensor weight = (at::randn({width}) * 0.3 + 1).to(type);
      for (const bool unit_offset : {false, true}) {
        expect_composition(
            at::randn({2, 3, width}).to(type),
            [&](const at::Tensor& x) { return rms_norm(x, weight, 1e-5, unit_offset); },
            [&](const at::Tensor& x) { return test::composed_rms_norm(x, weight, 1e-5, unit_offset); });
      }
    }
    const at::Tensor weight = at::ones({576}).to(type);
    expect_composition((at::randn({200, 576}) * 40).to(type),
                       [&](const at::Tensor& x) { return rms_norm(x, weight, 1e-5); },
                       [&](const at::Tensor& x) { return test::composed_rms_norm(x, weight, 1e-5, false); });
  }
}

TEST(Elementwise, LayerNormIsItsComposition) {
  at::manual_seed(2);
  for (const at::ScalarType type : types) {
    for (const int64_t width : {1, 7, 33, 768}) {
      const at::Tensor weight = (at::randn({width}) * 0.3 + 1).to(type), bias = at::randn({width}).to(type);
      const at::Tensor x = (at::randn({5, width}) + 3).to(type);
      const auto expect = [&](const at::Tensor& offset) {
        expect_composition(
            x, [&](const at::Tensor& rows) { return layer_norm(rows, weight, offset, 1e-5); },
            [&](const at::Tensor& rows) { return at::layer_norm(rows, {width}, weight, offset, 1e-5); });
      };
      expect(bias);
      if (width > 1) expect({});
    }
  }
}

TEST(Elementwise, LayerNormHoldsFarFromZeroAtAnyWidth) {
  at::manual_seed(7);
  for (const int64_t width : {7, 16, 17, 33}) {
    const at::Tensor x = at::randn({5, width}) + 4096, ones = at::ones({width});
    const at::Tensor expected = at::layer_norm(x.to(at::kDouble), {width}, {}, {}, 1e-5);
    test::at_every_level([&] { EXPECT_LT(distance(layer_norm(x, ones, {}, 1e-5), expected), 1e-3) << width; });
  }
}

TEST(Elementwise, RotationIsItsComposition) {
  at::manual_seed(3);
  for (const at::ScalarType type : types) {
    for (const auto& [width, half] : std::vector<std::pair<int64_t, int64_t>>{{64, 32}, {80, 16}, {6, 3}, {5, 2}}) {
      for (const int64_t rows : {0, 1, 37, 400}) {
        const at::Tensor angles = at::rand({rows, half}) * 6.3;
        const at::Tensor x = at::randn({rows, 3, width}).to(type);
        if (rows == 0) {
          EXPECT_EQ(rotate(x, angles.cos(), angles.sin()).numel(), 0);
          continue;
        }
        expect_composition(
            x, [&](const at::Tensor& v) { return rotate(v, angles.cos(), angles.sin()); },
            [&](const at::Tensor& v) { return test::composed_rotation(v, angles.cos(), angles.sin()); });
      }
    }
  }
}

TEST(Elementwise, RotationReadsASliceOfFusedRows) {
  at::manual_seed(4);
  const at::Tensor fused = at::randn({5, 9, 64});
  const at::Tensor angles = at::rand({5, 32});
  const at::Tensor keys = fused.narrow(1, 6, 3);
  EXPECT_TRUE(
      at::equal(rotate(keys, angles.cos(), angles.sin()), rotate(keys.contiguous(), angles.cos(), angles.sin())));
}

TEST(Elementwise, GatedActivationIsItsComposition) {
  at::manual_seed(5);
  for (const at::ScalarType type : types) {
    for (const Activation activation : {Activation::silu, Activation::gelu, Activation::gelu_tanh, Activation::relu}) {
      // LibTorch's CPU gelu with tanh rounds inside the formula in bfloat16; ours (as its GPU kernel) once at the end.
      const double same_share = activation == Activation::gelu_tanh ? 0.6 : 0.97;
      for (const int64_t width : {1, 17, 1536}) {
        SCOPED_TRACE("activation " + std::to_string(static_cast<int>(activation)));
        expect_composition((at::randn({4, 2 * width}) * 5).to(type),
                           [&](const at::Tensor& x) { return gated(activation, x); },
                           [&](const at::Tensor& x) { return test::composed_gated(activation, x); }, same_share);
      }
    }
  }
}

TEST(Elementwise, ActivationsHoldAtTheEndsOfTheRange) {
  const cpu::Level before = cpu::level();
  const std::vector<float> gates = {-1e30f, -200, -104, -90, -87.5f, 0, 88, 90, 1e30f};
  for (const cpu::Level level : {cpu::Level::portable, cpu::Level::avx2, cpu::Level::avx512}) {
    if (!cpu::choose_level(level)) continue;
    for (const Activation activation : {Activation::silu, Activation::gelu_tanh, Activation::relu}) {
      for (const float gate : gates) {
        const float y = gated(activation, at::full({1, 2}, gate) * at::arange(1, -1, -1))[0][0].item<float>();
        EXPECT_TRUE(y == 0) << gate;  // up is 0
        at::Tensor pair = at::ones({1, 2});
        pair[0][0] = gate;
        const float z = gated(activation, pair)[0][0].item<float>();
        EXPECT_NEAR(z, gate > 0 ? gate : 0, 1e-30f) << gate;
      }
      at::Tensor pair = at::ones({1, 2});
      pair[0][0] = std::numeric_limits<float>::quiet_NaN();
      EXPECT_TRUE(std::isnan(gated(activation, pair)[0][0].item<float>()));
    }
  }
  cpu::choose_level(before);
}

TEST(Elementwise, GradientsFlowWhereThereIsNoKernelForThem) {
  at::manual_seed(6);
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    const at::Tensor x = at::randn({3, 8}).to(type).requires_grad_(true);
    const at::Tensor weight = at::ones({8}).to(type).requires_grad_(true);
    layer_norm(x, weight, {}, 1e-5).square().sum().backward();
    EXPECT_TRUE(weight.grad().defined());
    EXPECT_TRUE(x.grad().defined());
    for (const Activation activation : {Activation::gelu, Activation::gelu_tanh, Activation::relu, Activation::silu}) {
      x.mutable_grad().zero_();
      gated(activation, x).sum().backward();
      EXPECT_GT(x.grad().abs().max().item<double>(), 0);
    }
    const at::NoGradGuard no_gradient;
    EXPECT_FALSE(layer_norm(x, weight, {}, 1e-5).requires_grad());
  }
}

}  // namespace
}  // namespace cepe::ops
