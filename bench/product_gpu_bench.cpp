#include "product_gpu_bench.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "graph_time.h"
#include "ops/activation.h"
#include "ops/fused_product.h"
#include "ops/rotary.h"
#include "ops/tuned_product.h"

namespace cepe::bench {
namespace {

constexpr int64_t bytes_in_a_graph = int64_t{1} << 29;  // more than a cache holds

// What two ways are called in what is printed.
struct Names {
  const char *what, *first, *second;
};

// One way and the other by turns, each for every weight.
template <class First, class Second>
void compare(const Names& names, int64_t rows, int64_t out, int64_t in, at::Device device, const First& first,
             const Second& second) {
  const at::TensorOptions options = at::TensorOptions(device).dtype(at::kBFloat16);
  const at::Tensor x = at::randn({rows, in}, options);
  std::vector<at::Tensor> weights;
  const int64_t count = rows > 64 ? 4 : std::max<int64_t>(4, bytes_in_a_graph / (2 * out * in));
  for (int64_t i = 0; i < count; ++i) weights.push_back(at::randn({out, in}, options));
  const auto all = [&](const auto& way) {
    return [&] {
      for (const at::Tensor& weight : weights) way(x, weight);
    };
  };
  all(first)();  // choices are made outside recordings
  all(second)();
  std::array<double, 2> before = {}, after = {};
  for (int turn = 0; turn < 2; ++turn) {
    before[turn] = seconds_of(all(first), count);
    after[turn] = seconds_of(all(second), count);
  }
  std::printf("%-8s %6lld x %5lld x %-5lld  %-8s %8.1f %8.1f us  %-5s %8.1f %8.1f us  %5.0f TFLOP/s  %.3f\n", names.what,
              static_cast<long long>(rows), static_cast<long long>(out), static_cast<long long>(in), names.first,
              before[0] * 1e6, before[1] * 1e6, names.second, after[0] * 1e6, after[1] * 1e6,
              2.0 * static_cast<double>(rows * out * in) / after[1] * 1e-12,
              (after[0] + after[1]) / (before[0] + before[1]));
}

void measure(int64_t rows, int64_t out, int64_t in, at::Device device) {
  compare(
      {"product", "LibTorch", "tuned"}, rows, out, in, device,
      [](const at::Tensor& x, const at::Tensor& weight) { at::linear(x, weight); },
      [](const at::Tensor& x, const at::Tensor& weight) { ops::tuned_product(x, weight); });
}

void measure_gated(int64_t rows, int64_t out, int64_t in, at::Device device) {
  compare(
      {"gated", "apart", "fused"}, rows, out, in, device,
      [](const at::Tensor& x, const at::Tensor& weight) {
        ops::gated(ops::Activation::silu, ops::tuned_product(x, weight));
      },
      [](const at::Tensor& x, const at::Tensor& weight) { ops::gated_product(ops::Activation::silu, x, weight); });
}

void measure_rotated(int64_t rows, int64_t out, int64_t in, int64_t width, at::Device device) {
  const at::Tensor angles = at::randn({rows, width / 2}, at::TensorOptions(device));
  const at::Tensor cos = angles.cos(), sin = angles.sin();
  const int64_t heads = out / width, rotated = heads / 3 * 2;
  compare(
      {"rotated", "apart", "fused"}, rows, out, in, device,
      [&](const at::Tensor& x, const at::Tensor& weight) {
        ops::rotate(ops::tuned_product(x, weight).view({rows, heads, width}).narrow(1, 0, rotated), cos, sin);
      },
      [&](const at::Tensor& x, const at::Tensor& weight) {
        ops::rotated_product(x, weight, cos, sin, rotated, width);
      });
}

}  // namespace

void measure_products(c10::Device device) {
  for (const int64_t rows : {64, 2048, 4096}) {
    measure(rows, 12288, 4096, device);
    measure(rows, 4096, 4096, device);
    measure(rows, 22016, 4096, device);
    measure(rows, 4096, 11008, device);
  }
  measure(4096, 32000, 4096, device);
  measure(16384, 3072, 1024, device);
  measure(16384, 1024, 1024, device);
  measure(16384, 8192, 1024, device);
  measure(16384, 1024, 4096, device);
  measure(32768, 4096, 1024, device);
  measure(65536, 4096, 1024, device);
  measure_gated(16384, 8192, 1024, device);
  measure_gated(12288, 8192, 1024, device);
  measure_gated(2048, 22016, 4096, device);
  measure_gated(4096, 22016, 4096, device);
  measure_rotated(16384, 3072, 1024, 64, device);
  measure_rotated(12288, 3072, 1024, 64, device);
  measure_rotated(4096, 12288, 4096, 128, device);
}

}  // namespace cepe::bench
