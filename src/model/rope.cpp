#include "model/rope.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace cepe::model {
namespace {

// theta^(-2i / width), in the order of operations of the published code (float32).
at::Tensor plain_frequencies(double theta, int64_t width) {
  const at::Tensor exponents = at::arange(0, width, 2, at::kFloat) / static_cast<double>(width);
  return 1.0 / at::pow(theta, exponents);
}

// YaRN: frequencies of fewer than `rotations` turns over the original context are interpolated, the fast ones kept,
// with a linear ramp between.
at::Tensor yarn_frequencies(const RopeConfig& rope, const at::Tensor& plain) {
  const auto width = static_cast<double>(rope.width);
  const auto boundary = [&](double rotations) {
    return width * std::log(static_cast<double>(rope.original_positions) / (rotations * 2 * std::numbers::pi)) /
           (2 * std::log(rope.theta));
  };
  const double low = std::max(std::floor(boundary(rope.beta_fast)), 0.0);
  double high = std::min(std::ceil(boundary(rope.beta_slow)), width - 1);
  if (low == high) high += 0.001;
  const at::Tensor ramp = ((at::arange(rope.width / 2, at::kFloat) - low) / (high - low)).clamp(0, 1);
  return plain / rope.factor * ramp + plain * (1.0 - ramp);
}

// Llama 3.1: by wavelength against the original context.
at::Tensor llama3_frequencies(const RopeConfig& rope, const at::Tensor& plain) {
  const auto original = static_cast<double>(rope.original_positions);
  const at::Tensor wavelength = 2 * std::numbers::pi / plain;
  const at::Tensor smooth =
      (original / wavelength - rope.low_frequency_factor) / (rope.high_frequency_factor - rope.low_frequency_factor);
  const at::Tensor between = (1.0 - smooth) * plain / rope.factor + smooth * plain;
  const at::Tensor slow = wavelength > original / rope.low_frequency_factor;
  const at::Tensor fast = wavelength < original / rope.high_frequency_factor;
  return at::where(slow, plain / rope.factor, at::where(fast, plain, between));
}

double amplitude(const RopeConfig& rope) {
  if (rope.scaling != RopeScaling::yarn) return 1;
  if (rope.attention_factor > 0) return rope.attention_factor;
  return 0.1 * std::log(rope.factor) + 1;
}

}  // namespace

at::Tensor inverse_frequencies(const RopeConfig& rope, int64_t reach) {
  const auto width = static_cast<double>(rope.width);
  if (rope.scaling == RopeScaling::dynamic && reach > rope.original_positions) {
    const double stretch =
        rope.factor * static_cast<double>(reach) / static_cast<double>(rope.original_positions) - (rope.factor - 1);
    return plain_frequencies(rope.theta * std::pow(stretch, width / (width - 2)), rope.width);
  }
  at::Tensor frequencies = plain_frequencies(rope.theta, rope.width);
  if (rope.scaling == RopeScaling::linear) frequencies = frequencies / rope.factor;
  if (rope.scaling == RopeScaling::yarn) frequencies = yarn_frequencies(rope, frequencies);
  if (rope.scaling == RopeScaling::llama3) frequencies = llama3_frequencies(rope, frequencies);
  if (!rope.divisors.empty()) {
    frequencies = frequencies / at::from_blob(const_cast<float*>(rope.divisors.data()), {rope.width / 2}, at::kFloat);
  }
  return frequencies;
}

RopeAngles rope_angles(const RopeConfig& rope, const BatchLayout& layout, const at::Tensor& known) {
  const at::Device device = layout.positions.device();
  const at::Tensor positions = layout.positions.to(at::kFloat).unsqueeze(1);  // [N, 1]
  at::Tensor angles;                                                          // [N, width / 2]
  if (rope.scaling == RopeScaling::dynamic) {
    std::vector<at::Tensor> parts;
    for (const SequenceRows& sequence : layout.sequences) {
      const at::Tensor frequencies = inverse_frequencies(rope, sequence.cached + sequence.count).to(device);
      parts.push_back(positions.narrow(0, sequence.first, sequence.count) * frequencies);
    }
    angles = at::cat(parts, 0);
  } else {
    angles = positions * (known.defined() ? known : inverse_frequencies(rope, 0).to(device));
  }
  const double scale = amplitude(rope);
  if (scale == 1) return {angles.cos(), angles.sin()};  // two kernels fewer: a decoded token has time for few
  return {angles.cos() * scale, angles.sin() * scale};
}

}  // namespace cepe::model
