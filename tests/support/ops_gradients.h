// What the gradients of ops/'s kernels promise, for any device: the tests on the CPU and on a GPU run these bodies.
#pragma once

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "composed_ops.h"
#include "distance.h"
#include "ops/norm.h"
#include "ops/rotary.h"

namespace cepe::test {

using Tensors = std::vector<at::Tensor>;

inline const std::vector<at::ScalarType> kernel_types = {at::kFloat, at::kBFloat16};

// The gradients of sum(operation(inputs) * direction).
template <class Operation>
Tensors gradients_of(const Operation& operation, const Tensors& inputs, const at::Tensor& direction) {
  return torch::autograd::grad({operation(inputs)}, inputs, {direction});
}

inline Tensors followed(const Tensors& inputs, at::Device device, at::ScalarType type) {
  Tensors leaves;
  for (const at::Tensor& input : inputs) leaves.push_back(input.detach().to(device, type).requires_grad_(true));
  return leaves;
}

// operation on `device` in `type` against composition in float64 on the CPU, values and gradients, of the same inputs
// (those of `type`'s precision).
template <class Operation, class Composition>
void expect_gradients(const Tensors& given, at::Device device, at::ScalarType type, const Operation& operation,
                      const Composition& composition) {
  Tensors inputs;
  for (const at::Tensor& tensor : given) inputs.push_back(tensor.to(type));
  SCOPED_TRACE(c10::str(inputs.front().sizes(), " ", type, " ", device));
  const Tensors wide = followed(inputs, at::kCPU, at::kDouble), own = followed(inputs, device, type);
  const at::Tensor expected = composition(wide), y = operation(own);
  ASSERT_TRUE(y.requires_grad());
  ASSERT_EQ(y.scalar_type(), type);
  ASSERT_EQ(y.sizes(), expected.sizes());
  const double tolerance = type == at::kFloat ? 3e-6 : 2e-2;
  EXPECT_LE(distance(y, expected), tolerance);
  const at::Tensor direction = at::randn(expected.sizes()).to(type);
  const Tensors wanted = torch::autograd::grad({expected}, wide, {direction.to(at::kDouble)});
  const Tensors gradients = torch::autograd::grad({y}, own, {direction.to(device)});
  for (size_t i = 0; i < own.size(); ++i) {
    ASSERT_TRUE(gradients[i].defined()) << "input " << i;
    EXPECT_EQ(gradients[i].scalar_type(), type) << "input " << i;
    EXPECT_EQ(gradients[i].device(), device) << "input " << i;
    EXPECT_LE(distance(gradients[i], wanted[i]), tolerance) << "input " << i;
  }
}

inline void expect_rms_norm_gradients(at::Device device) {
  for (const at::ScalarType type : kernel_types) {
    // At width 1 nothing but eps keeps the gradient in x from vanishing.
    for (const int64_t width : {5, 8, 33, 64, 100, 576, 1000, 4096, 8191, 8192, 8200}) {
      const at::Tensor weight = at::randn({width}) * 0.3 + 1;
      for (const bool unit_offset : {false, true}) {
        for (const int64_t rows : {1, 5, 131}) {
          expect_gradients(
              {at::randn({rows, 1, width}) * 2, weight}, device, type,
              [&](const Tensors& in) { return ops::rms_norm(in[0], in[1], 1e-5, unit_offset); },
              [&](const Tensors& in) { return composed_rms_norm(in[0], in[1], 1e-5, unit_offset); });
        }
      }
    }
    // Enough rows that a team on the GPU takes several, and a block on the CPU.
    for (const auto& [rows, width] : std::vector<std::pair<int64_t, int64_t>>{{5000, 64}, {2500, 576}, {600, 2048}}) {
      expect_gradients(
          {at::randn({rows, width}) * 3, at::ones({width})}, device, type,
          [](const Tensors& in) { return ops::rms_norm(in[0], in[1], 1e-5); },
          [](const Tensors& in) { return composed_rms_norm(in[0], in[1], 1e-5, false); });
    }
  }
}

// Either input alone gets the gradient that it gets beside the other, and the sum over rows comes out the same each
// time.
inline void expect_rms_norm_gradients_one_by_one(at::Device device) {
  for (const at::ScalarType type : kernel_types) {
    const at::Tensor x = at::randn({700, 96}).to(device, type), weight = at::randn({96}).to(device, type);
    const at::Tensor direction = at::randn({700, 96}).to(device, type);
    const auto norm = [](const Tensors& in) { return ops::rms_norm(in[0], in[1], 1e-5); };
    const Tensors both = gradients_of(norm, followed({x, weight}, device, type), direction);
    const Tensors again = gradients_of(norm, followed({x, weight}, device, type), direction);
    const at::Tensor of_x = gradients_of([&](const Tensors& in) { return ops::rms_norm(in[0], weight, 1e-5); },
                                         followed({x}, device, type), direction)[0];
    const at::Tensor of_weight = gradients_of([&](const Tensors& in) { return ops::rms_norm(x, in[0], 1e-5); },
                                              followed({weight}, device, type), direction)[0];
    EXPECT_TRUE(of_x.equal(both[0]) && of_weight.equal(both[1]));
    EXPECT_TRUE(again[0].equal(both[0]) && again[1].equal(both[1]));
  }
}

inline void expect_rotation_gradients(at::Device device) {
  for (const at::ScalarType type : kernel_types) {
    for (const auto& [width, half] : std::vector<std::pair<int64_t, int64_t>>{{64, 32}, {80, 16}, {6, 3}, {5, 2}}) {
      for (const int64_t rows : {1, 37}) {
        const at::Tensor angles = at::rand({rows, half}) * 6.3;
        const at::Tensor cos = angles.cos().to(device), sin = angles.sin().to(device);
        // Angles as the kernel rounds them.
        const at::Tensor rounded_cos = angles.cos().to(type), rounded_sin = angles.sin().to(type);
        expect_gradients(
            {at::randn({rows, 3, width})}, device, type,
            [&](const Tensors& in) { return ops::rotate(in[0], cos, sin); },
            [&](const Tensors& in) { return composed_rotation(in[0], rounded_cos, rounded_sin); });
      }
    }
  }
}

// Queries and keys are slices of one tensor; attention hands gradients back transposed, a sum hands back an expanded
// one.
inline void expect_rotation_gradients_of_slices(at::Device device) {
  for (const at::ScalarType type : kernel_types) {
    const at::Tensor angles = at::rand({5, 32});
    const at::Tensor rounded_cos = angles.cos().to(type), rounded_sin = angles.sin().to(type);
    const at::Tensor cos = angles.cos().to(device), sin = angles.sin().to(device);
    const auto slices = [](const at::Tensor& fused, const auto& rotation) {
      return rotation(fused.narrow(1, 0, 6)).transpose(0, 1).slice(0, 0, 3) *
             rotation(fused.narrow(1, 6, 3)).transpose(0, 1);
    };
    expect_gradients(
        {at::randn({5, 12, 64})}, device, type,
        [&](const Tensors& in) { return slices(in[0], [&](const at::Tensor& x) { return ops::rotate(x, cos, sin); }); },
        [&](const Tensors& in) {
          return slices(in[0], [&](const at::Tensor& x) { return composed_rotation(x, rounded_cos, rounded_sin); });
        });
    const at::Tensor x = at::randn({5, 2, 64}).to(device, type).requires_grad_(true);
    const at::Tensor gradient = torch::autograd::grad({ops::rotate(x, cos, sin).sum()}, {x})[0];
    const at::Tensor wide = x.detach().to(at::kCPU, at::kDouble).requires_grad_(true);
    EXPECT_LE(
        distance(gradient, torch::autograd::grad({composed_rotation(wide, rounded_cos, rounded_sin).sum()}, {wide})[0]),
        type == at::kFloat ? 3e-6 : 2e-2);
  }
}

inline void expect_gated_silu_gradients(at::Device device) {
  for (const at::ScalarType type : kernel_types) {
    for (const int64_t width : {1, 3, 8, 17, 100, 1536, 4097}) {
      for (const double size : {1.0, 30.0}) {
        expect_gradients(
            {at::randn({6, 2 * width}) * size}, device, type,
            [](const Tensors& in) { return ops::gated(ops::Activation::silu, in[0]); },
            [](const Tensors& in) { return composed_gated(ops::Activation::silu, in[0]); });
      }
    }
    expect_gradients(
        {at::randn({3, 5, 64})}, device, type,
        [](const Tensors& in) { return ops::gated(ops::Activation::silu, in[0].transpose(0, 1)); },
        [](const Tensors& in) { return composed_gated(ops::Activation::silu, in[0].transpose(0, 1)); });
  }
}

inline void expect_gated_silu_gradients_at_the_ends_of_the_range(at::Device device) {
  for (const float gate : {-1e30f, -200.0f, -104.0f, -88.0f, 0.0f, 88.0f, 200.0f, 1e30f}) {
    const at::Tensor pair = at::full({1, 2}, gate, at::TensorOptions(device));
    pair.select(1, 1).fill_(3);
    pair.requires_grad_(true);
    const at::Tensor gradient = torch::autograd::grad({ops::gated(ops::Activation::silu, pair).sum()}, {pair})[0].cpu();
    EXPECT_NEAR(gradient[0][0].item<float>(), gate == 0 ? 1.5f : gate > 0 ? 3 : 0, 1e-5f) << gate;
    EXPECT_NEAR(gradient[0][1].item<float>(), gate > 0 ? gate : 0, 1e-5f) << gate;
  }
}

inline void expect_gradients_of_nothing(at::Device device) {
  for (const at::ScalarType type : kernel_types) {
    const Tensors norm = followed({at::ones({0, 64}), at::ones({64})}, device, type);
    const Tensors of_norm = torch::autograd::grad({ops::rms_norm(norm[0], norm[1], 1e-5).sum()}, norm);
    EXPECT_EQ(of_norm[0].sizes(), norm[0].sizes());
    EXPECT_TRUE(at::equal(of_norm[1], at::zeros_like(norm[1])));
    const Tensors pair = followed({at::ones({0, 64})}, device, type);
    EXPECT_EQ(torch::autograd::grad({ops::gated(ops::Activation::silu, pair[0]).sum()}, pair)[0].numel(), 0);
    const Tensors heads = followed({at::ones({0, 2, 8})}, device, type);
    const at::Tensor angles = at::ones({0, 4}, at::TensorOptions(device));
    EXPECT_EQ(torch::autograd::grad({ops::rotate(heads[0], angles, angles).sum()}, heads)[0].numel(), 0);
  }
}

inline void expect_second_derivatives_refused_or_right(at::Device device) {
  const at::Tensor x = at::randn({3, 4, 8}).to(device).requires_grad_(true);
  const at::Tensor weight = at::ones({8}).to(device);
  const auto again = [&](const at::Tensor& y) {
    return torch::autograd::grad({y.square().sum()}, {x}, {}, std::nullopt, true)[0];
  };
  EXPECT_THROW(again(ops::rms_norm(x, weight, 1e-5)), base::Error);
  EXPECT_THROW(again(ops::gated(ops::Activation::silu, x)), base::Error);
  // The gradient of |rotate(x)|^2 is 2 x, whose own gradient is 2.
  const at::Tensor angles = at::rand({3, 4}).to(device);
  const at::Tensor first = again(ops::rotate(x, angles.cos(), angles.sin()));
  EXPECT_LE(distance(torch::autograd::grad({first.sum()}, {x})[0], at::full({3, 4, 8}, 2)), 1e-5);
}

// With no gradient wanted the results are those of the plain calls, and nothing is kept for a gradient.
inline void expect_plain_results_without_gradients(at::Device device) {
  for (const at::ScalarType type : kernel_types) {
    const at::Tensor x = at::randn({5, 4, 64}).to(device, type), weight = at::randn({64}).to(device, type);
    const at::Tensor angles = at::rand({5, 32}).to(device), cos = angles.cos(), sin = angles.sin();
    const at::Tensor followed_x = x.clone().requires_grad_(true);
    const auto all = [&](const at::Tensor& in) {
      return Tensors{ops::rms_norm(in, weight, 1e-5), ops::rotate(in, cos, sin), ops::gated(ops::Activation::silu, in)};
    };
    const Tensors plain = all(x), differentiated = all(followed_x);
    const at::NoGradGuard none;
    const Tensors unfollowed = all(followed_x);
    for (size_t i = 0; i < plain.size(); ++i) {
      EXPECT_FALSE(plain[i].requires_grad() || unfollowed[i].requires_grad());
      EXPECT_TRUE(differentiated[i].requires_grad());
      EXPECT_TRUE(plain[i].equal(unfollowed[i]) && plain[i].equal(differentiated[i])) << i;
    }
  }
}

}  // namespace cepe::test
