#include "dense_gpu_bench.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention.h>
#include <ATen/ops/_scaled_dot_product_flash_attention.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <optional>

#include "graph_time.h"
#include "ops/dense_attention.h"

namespace cepe::bench {
namespace {

constexpr double tensor_peak = 989e12;  // dense bfloat16 of an H100 or H200, by the datasheet

struct Shape {
  int64_t rows, heads, groups, width, keys;
  bool zeros = false;  // what the kernels take where power is not the limit
};

void measure(const Shape& shape, at::Device device) {
  const auto options = at::TensorOptions(device).dtype(at::kBFloat16);
  const auto values_of = [&](at::IntArrayRef sizes) {
    return shape.zeros ? at::zeros(sizes, options) : at::randn(sizes, options);
  };
  const at::Tensor queries = values_of({shape.rows, shape.heads, shape.width}),
                   keys = values_of({shape.keys, shape.groups, shape.width}),
                   values = values_of({shape.keys, shape.groups, shape.width});
  const double scale = 1 / std::sqrt(static_cast<double>(shape.width));
  if (!ops::dense_attention(queries, keys, values, scale)) return;  // this GPU has no such kernel
  const auto by_head = [](const at::Tensor& x) { return x.transpose(0, 1).unsqueeze(0); };
  const auto spread = [&](const at::Tensor& x) {  // grouped heads as LibTorch's kernels take them
    const int64_t each = shape.heads / shape.groups;
    return by_head(x).unsqueeze(2).expand({-1, -1, each, -1, -1}).flatten(1, 2);
  };
  const at::Tensor spread_keys = spread(keys), spread_values = spread(values);
  const std::array<std::function<void()>, 3> ways = {
      [&] {
        at::_scaled_dot_product_flash_attention(by_head(queries), spread_keys, spread_values, 0.0, false, false, scale);
      },
      [&] {
        at::_scaled_dot_product_cudnn_attention(by_head(queries), spread_keys, spread_values, std::nullopt, true, 0.0,
                                                false, false, scale);
      },
      [&] { ops::dense_attention(queries, keys, values, scale); }};
  const double operations =
      4 * static_cast<double>(shape.rows) * static_cast<double>(shape.heads * shape.width) * static_cast<double>(shape.keys);
  std::array<std::array<double, 2>, 3> seconds = {};
  for (size_t turn = 0; turn < 2; ++turn) {
    for (size_t way = 0; way < ways.size(); ++way) {
      ways[way]();  // plans are made outside recordings
      seconds[way][turn] = seconds_of(ways[way], 1);
    }
  }
  std::printf("dense attention D %3lld  H %2lld  G %2lld  rows %5lld  keys %6lld%s", static_cast<long long>(shape.width),
              static_cast<long long>(shape.heads), static_cast<long long>(shape.groups),
              static_cast<long long>(shape.rows), static_cast<long long>(shape.keys), shape.zeros ? " zeros" : "      ");
  constexpr std::array names = {"flash", "cuDNN", "ours"};
  for (size_t way = 0; way < ways.size(); ++way)
    std::printf("  %s %9.1f %9.1f us", names[way], seconds[way][0] * 1e6, seconds[way][1] * 1e6);
  std::printf("  %5.0f TFLOP/s  %.2f of the peak\n", operations / seconds[2][1] * 1e-12,
              operations / seconds[2][1] / tensor_peak);
}

}  // namespace

void measure_dense_attention(c10::Device device) {
  for (const int64_t rows : {4096, 2048}) {
    for (const int64_t keys : {16384, 65536}) measure({rows, 32, 32, 128, keys}, device);
  }
  measure({4096, 32, 32, 128, 65536, true}, device);
  for (const int64_t rows : {1000, 512, 200}) measure({rows, 32, 32, 128, 32768}, device);
  measure({2048, 32, 8, 128, 32768}, device);
  measure({1024, 32, 32, 128, 4096}, device);
  for (const int64_t rows : {2048, 256}) measure({rows, 9, 3, 64, 32768}, device);
  measure({2048, 32, 32, 64, 32768}, device);
}

}  // namespace cepe::bench
