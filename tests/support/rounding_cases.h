// What calibrated rounding must give, on the CPU and on a GPU.
#pragma once

#include <ATen/ops/argsort.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_cholesky.h>
#include <ATen/ops/linalg_inv.h>
#include <ATen/ops/rand.h>

#include <algorithm>

#include "ops/calibrated_rounding.h"
#include "ops/triangular.h"
#include "packed_cases.h"

namespace cepe::test {

// Inputs [rows, in] that vary together: few directions carry most of what they are, as in a model.
inline at::Tensor correlated_inputs(int64_t rows, int64_t in) {
  const int64_t directions = std::max<int64_t>(1, in / 4);
  return at::randn({rows, directions}).matmul(at::randn({directions, in})) + 0.3 * at::randn({rows, in});
}

inline at::Tensor moments_of(const at::Tensor& x) { return x.t().matmul(x); }

// tr(E H E^T) by row [out], float64.
inline at::Tensor rounding_cost(const ops::PackedWeight& rounded, const at::Tensor& weight, const at::Tensor& moments) {
  const at::Tensor error = ops::unpack(rounded, at::kFloat).to(at::kCPU, at::kDouble) - weight.to(at::kDouble);
  return (error.matmul(moments.to(at::kDouble)) * error).sum(1);
}

inline void expect_factors_of_matrices(at::Device device) {
  for (const int64_t n : {1, 2, 127, 128, 129, 300}) {
    const at::Tensor matrix = moments_of(at::randn({2 * n, n}, at::kDouble));
    const at::Tensor lower = ops::cholesky(matrix.to(device)).to(at::kCPU);
    EXPECT_LT(packed_distance(lower, at::linalg_cholesky(matrix)), 1e-9) << n;
  }
}

inline void expect_less_cost_than_the_nearest(at::Device device) {
  for (const int64_t in : {16, 130, 300}) {
    const at::Tensor weight = at::randn({40, in}), moments = moments_of(correlated_inputs(8 * in, in));
    const auto cost = [&](const ops::PackedWeight& rounded) { return rounding_cost(rounded, weight, moments); };
    const at::Tensor calibrated = cost(ops::quantise_calibrated(weight.to(device), moments.to(device)));
    const at::Tensor nearest = cost(ops::quantise(weight.to(device), ops::PackedFormat::fp8_row));
    EXPECT_LT(calibrated.sum().item<double>(), 0.6 * nearest.sum().item<double>()) << in;
  }
}

// GPTQ as its paper has it, column by column: the inverse of the damped moments, and what is left of it once a column
// is done. The two recursions round the same numbers but for float32: a few codes at the borders may differ.
inline at::Tensor gptq(const at::Tensor& weight, const at::Tensor& moments, const at::Tensor& scale) {
  at::Tensor damped = moments.to(at::kDouble).clone();
  damped.diagonal().add_(0.1 * damped.diagonal().mean());
  const at::Tensor order = at::argsort(moments.diagonal(), 0, /*descending=*/true);
  at::Tensor inverse = at::linalg_inv(damped.index_select(0, order).index_select(1, order));
  at::Tensor left = weight.to(at::kDouble).index_select(1, order).clone();
  const int64_t in = weight.size(1);
  const at::Tensor rounded = at::zeros({weight.size(0), in}, at::kDouble);
  for (int64_t k = 0; k < in; ++k) {
    const at::Tensor scaled = (left.select(1, k) / scale).to(at::kFloat).clamp(-448, 448);
    const at::Tensor value = scaled.to(at::kFloat8_e4m3fn).to(at::kDouble) * scale;
    rounded.select(1, order[k].item<int64_t>()).copy_(value);
    const at::Tensor error = (left.select(1, k) - value) / inverse[k][k];
    left = left - error.unsqueeze(1) * inverse[k].unsqueeze(0);
    inverse = inverse - inverse.select(1, k).unsqueeze(1) * inverse[k].unsqueeze(0) / inverse[k][k];
  }
  return rounded;
}

// Each weight to the nearest, with given scales [out].
inline at::Tensor nearest_with(const at::Tensor& weight, const at::Tensor& scales) {
  const at::Tensor scale = scales.unsqueeze(1);
  return (weight / scale).clamp(-448, 448).to(at::kFloat8_e4m3fn).to(at::kFloat) * scale;
}

inline void expect_gptqs_recursion(at::Device device) {
  const at::Tensor weight = at::randn({20, 150}), moments = moments_of(correlated_inputs(900, 150));
  const ops::PackedWeight rounded = ops::quantise_calibrated(weight.to(device), moments.to(device));
  const at::Tensor scales = rounded.scales.to(at::kCPU), found = ops::unpack(rounded, at::kFloat).to(at::kCPU);
  const at::Tensor expected = gptq(weight, moments, scales.to(at::kDouble)).to(at::kFloat);
  const auto same = [&](const at::Tensor& values) {
    return (values - expected).abs().le(1e-6 * expected.abs()).to(at::kFloat).mean().item<double>();
  };
  EXPECT_GT(same(found), 0.97);
  EXPECT_LT(same(nearest_with(weight, scales)), 0.8);
}

// A row's scale is at least its largest magnitude / 448, less than twice that, and of those tried the best.
inline void expect_scales_within_a_binade(at::Device device) {
  const at::Tensor weight = at::randn({50, 96}), moments = moments_of(correlated_inputs(600, 96));
  const ops::PackedWeight rounded = ops::quantise_calibrated(weight.to(device), moments.to(device));
  const at::Tensor factor = rounded.scales.to(at::kCPU) / (weight.abs().amax(1) / at::full({}, 448.0F));
  EXPECT_GE(factor.min().item<double>(), 1 - 1e-6);
  EXPECT_LT(factor.max().item<double>(), 2);
  EXPECT_GT(factor.max().item<double>(), 1.5);
  const at::Tensor plain_scale = gptq(weight, moments, weight.abs().amax(1).to(at::kDouble) / 448);
  const at::Tensor error = plain_scale - weight.to(at::kDouble);
  const double plain_cost = (error.matmul(moments.to(at::kDouble)) * error).sum().item<double>();
  EXPECT_LT(rounding_cost(rounded, weight, moments).sum().item<double>(), 0.95 * plain_cost);
}

inline bool codes_equal(const ops::PackedWeight& a, const ops::PackedWeight& b) {
  return at::equal(a.data, b.data) && at::equal(a.scales, b.scales);
}

inline void expect_nearest_without_correlation(at::Device device) {
  const at::Tensor weight = at::randn({9, 140}).to(device);
  for (const at::Tensor& moments : {(at::rand({140}) + 0.1).diag(), at::zeros({140, 140})}) {
    const ops::PackedWeight rounded = ops::quantise_calibrated(weight, moments.to(device));
    EXPECT_TRUE(at::equal(ops::unpack(rounded, at::kFloat), nearest_with(weight, rounded.scales)));
  }
}

inline void expect_nearest_of_unseen_inputs(at::Device device) {
  const at::Tensor x = correlated_inputs(400, 70);
  x.narrow(1, 20, 10).zero_();
  const at::Tensor weight = at::randn({9, 70}).to(device);
  const ops::PackedWeight rounded = ops::quantise_calibrated(weight, moments_of(x).to(device));
  const at::Tensor found = ops::unpack(rounded, at::kFloat), nearest = nearest_with(weight, rounded.scales);
  EXPECT_TRUE(at::equal(found.narrow(1, 20, 10), nearest.narrow(1, 20, 10)));
  EXPECT_FALSE(at::equal(found, nearest));
}

inline void expect_singular_moments_taken(at::Device device) {
  const at::Tensor weight = at::randn({12, 200}), moments = moments_of(correlated_inputs(5, 200));
  const auto cost = [&](const ops::PackedWeight& rounded) {
    return rounding_cost(rounded, weight, moments).sum().item<double>();
  };
  EXPECT_LT(cost(ops::quantise_calibrated(weight.to(device), moments.to(device))),
            0.2 * cost(ops::quantise(weight.to(device), ops::PackedFormat::fp8_row)));
}

inline void expect_the_same_at_every_call(at::Device device) {
  const at::Tensor weight = at::randn({33, 260}).to(device),
                   moments = moments_of(correlated_inputs(600, 260)).to(device);
  EXPECT_TRUE(codes_equal(ops::quantise_calibrated(weight, moments), ops::quantise_calibrated(weight, moments)));
}

}  // namespace cepe::test
