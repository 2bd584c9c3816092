#include "packed_gpu_bench.h"

#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <utility>
#include <vector>

#include "graph_time.h"
#include "ops/packed_weight.h"
#include "ops/quantise.h"
#include "ops/row_product.h"

namespace cepe::bench {
namespace {

constexpr int64_t bytes_in_a_graph = int64_t{1} << 30;  // far more than a cache holds: each weight is read from memory

const char* name_of(ops::PackedFormat format) {
  switch (format) {
    case ops::PackedFormat::fp8_row:
      return "fp8_row";
    case ops::PackedFormat::int8_row:
      return "int8_row";
    default:
      return "q4_1";
  }
}

std::vector<at::Tensor> dense_weights(int64_t out, int64_t in, at::Device device) {
  std::vector<at::Tensor> weights;
  for (int64_t i = 0; i < std::max<int64_t>(4, bytes_in_a_graph / (2 * out * in)); ++i)
    weights.push_back(at::randn({out, in}, at::TensorOptions(device).dtype(at::kBFloat16)));
  return weights;
}

void measure(int64_t out, int64_t in, at::Device device, double bandwidth) {
  const std::vector<at::Tensor> dense = dense_weights(out, in, device);
  const auto count = static_cast<int64_t>(dense.size());
  const auto rows_of_x = [&](int64_t rows) { return at::randn({rows, in}, dense.front().options()); };
  for (const ops::PackedFormat format :
       {ops::PackedFormat::fp8_row, ops::PackedFormat::int8_row, ops::PackedFormat::q4_1}) {
    std::vector<ops::PackedWeight> weights;
    for (int copy = 0; copy < 2; ++copy) {  // half the bytes: twice as many
      for (const at::Tensor& weight : dense) weights.push_back(ops::quantise(weight, format));
    }
    const auto bytes = static_cast<double>(ops::packed_bytes(weights.front()));
    for (const int64_t rows : {1, 4, 8, 16, 64}) {
      const at::Tensor x = rows_of_x(rows);
      const auto multiply_all = [&] {
        for (const ops::PackedWeight& weight : weights) ops::packed_linear(x, weight);
      };
      const auto multiply_dense = [&] {
        for (const at::Tensor& weight : dense) at::linear(x, weight);
      };
      const auto multiply_rows = [&] {
        for (const at::Tensor& weight : dense) ops::row_product(x, weight);
      };
      const double seconds = seconds_of(multiply_all, 2 * count), dense_seconds = seconds_of(multiply_dense, count);
      std::printf(
          "packed %-8s %5lld x %-5lld  N %3lld  %8.2f us  %7.1f GB/s  bound %7.2f us  %.2f of it  dense %8.2f us, "
          "row_product %8.2f us\n",
                  name_of(format), static_cast<long long>(out), static_cast<long long>(in),
                  static_cast<long long>(rows), seconds * 1e6, bytes / seconds * 1e-9, bytes / bandwidth * 1e6,
                  bytes / bandwidth / seconds, dense_seconds * 1e6,
                  seconds_of(multiply_rows, count) * 1e6);
    }
  }
}

}  // namespace

void measure_packed(c10::Device device, double bandwidth) {
  for (const auto& [out, in] : std::vector<std::pair<int64_t, int64_t>>{
           {12288, 4096}, {4096, 4096}, {22016, 4096}, {4096, 11008}, {32000, 4096}})
    measure(out, in, device, bandwidth);
}

}  // namespace cepe::bench
