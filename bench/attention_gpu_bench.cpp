#include "attention_gpu_bench.h"

#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <span>
#include <vector>

#include "graph_time.h"
#include "ops/int8_rows.h"
#include "ops/page_log_sum_exps.h"
#include "ops/paged_attention.h"

namespace cepe::bench {
namespace {

constexpr double tensor_peak = 989e12;  // dense bfloat16 of an H100 or H200, by the datasheet
constexpr int most_calls = 32;          // in a graph, as many as a step has: its start is shared among them
constexpr int long_calls = 5;           // of those that take more than half a millisecond
constexpr int64_t page_rows = 256;

struct Shape {
  int64_t width, groups;
  bool latent;
  int64_t sequences, query_rows, cached_rows;  // of each sequence; query rows: of each group
  bool shared = false;                         // one context for all
  bool layers = false;  // calls take tables of their own in turn, as a step's layers do: none reads what another has
  bool packed = false;  // states in 8 bits
  bool zeros = false;   // states of zeros: what the kernels take where power is not the limit
};

std::vector<ops::RowPage> pages_of(const Shape& shape, at::Device device) {
  std::vector<ops::RowPage> pages;
  for (int64_t row = 0; row < shape.cached_rows; row += page_rows) {
    const auto random = [&] {
      const auto options = at::TensorOptions(device).dtype(at::kBFloat16);
      const std::array<int64_t, 3> sizes = {page_rows, shape.groups, shape.width};
      return shape.zeros ? at::zeros(sizes, options) : at::randn(sizes, options);
    };
    const at::Tensor keys = shape.packed ? ops::int8_rows(random().squeeze(1)).unsqueeze(1) : random();
    pages.push_back({keys, shape.latent ? keys : random()});
  }
  return pages;
}

void measure(const Shape& shape, at::Device device, double bandwidth) {
  const double rows = static_cast<double>(shape.cached_rows * shape.groups) * static_cast<double>(shape.width);
  const double of_a_value = shape.packed ? 1 + 4 / static_cast<double>(shape.width) : shape.latent ? 2 : 4;
  const double bytes = rows * of_a_value * (shape.shared ? 1 : static_cast<double>(shape.sequences));
  constexpr double beyond_cache = 512e6;
  const int copies = shape.layers ? std::clamp(static_cast<int>(beyond_cache / bytes) + 1, 2, most_calls) : 1;
  std::vector<std::vector<std::vector<ops::RowPage>>> pages(static_cast<size_t>(copies));
  std::vector<ops::PageTable> tables;
  for (std::vector<std::vector<ops::RowPage>>& sequences : pages) {
    for (int64_t i = 0; i < shape.sequences; ++i) {
      sequences.push_back(shape.shared && i > 0 ? sequences.front() : pages_of(shape, device));
    }
    tables.push_back(ops::page_table(sequences, device));
  }
  std::vector<int32_t> first = {0};
  for (int64_t i = 0; i < shape.sequences; ++i) {
    first.push_back(first.back() + static_cast<int32_t>(shape.query_rows));
  }
  const ops::BatchQueries queries = {
      at::randn({first.back(), shape.groups, shape.width}, at::TensorOptions(device).dtype(at::kBFloat16)),
      at::tensor(first, at::kInt).to(device), shape.query_rows};
  const double scale = 1 / std::sqrt(static_cast<double>(shape.width));
  ops::BatchAttention result = ops::paged_attention(queries, tables.front(), scale, at::kBFloat16);
  const auto seconds_of_calls = [&](int calls) {
    const auto attend = [&] {
      for (int i = 0; i < calls; ++i)
        ops::paged_attention(queries, tables[static_cast<size_t>(i) % tables.size()], scale, result);
    };
    return seconds_of(attend, calls);
  };
  double seconds = seconds_of_calls(long_calls);
  if (seconds < 500e-6) seconds = seconds_of_calls(most_calls);
  const double operations = 4 * rows * static_cast<double>(shape.query_rows * shape.sequences);
  const double bound = std::max(bytes / bandwidth, operations / tensor_peak);
  std::printf(
      "attention %s D %4lld  G %2lld  B %2lld  R %4lld  rows %6lld%s  %9.1f us  %7.1f GB/s  %6.1f TFLOP/s  bound %7.1f "
      "us  %.2f of it\n",
      shape.packed   ? "int8  "
      : shape.latent ? "latent"
                     : "kept  ",
      static_cast<long long>(shape.width), static_cast<long long>(shape.groups),
      static_cast<long long>(shape.sequences), static_cast<long long>(shape.query_rows),
      static_cast<long long>(shape.cached_rows),
      shape.shared   ? " shared"
      : shape.layers ? " layers"
      : shape.zeros  ? " zeros "
                     : "       ",
      seconds * 1e6, bytes / seconds * 1e-9, operations / seconds * 1e-12, bound * 1e6, bound / seconds);
}

// Of one sequence; as many copies of the pages in turn as no cache holds.
void measure_page_sums(const Shape& shape, at::Device device, double bandwidth) {
  const double rows = static_cast<double>(shape.cached_rows * shape.groups) * static_cast<double>(shape.width);
  const double bytes = rows * (shape.packed ? 1 + 4 / static_cast<double>(shape.width) : 2);
  const int copies = std::clamp(static_cast<int>(512e6 / bytes) + 1, 2, most_calls);
  std::vector<std::vector<ops::RowPage>> pages;
  std::vector<ops::PageTable> tables;
  for (int i = 0; i < copies; ++i) {
    pages.push_back(pages_of(shape, device));
    tables.push_back(ops::page_table(std::span(&pages.back(), 1), device));
  }
  const at::Tensor of = at::zeros({tables.front().keys.size(0)}, at::TensorOptions(device).dtype(at::kLong));
  const at::Tensor queries =
      at::randn({shape.query_rows, shape.groups, shape.width}, at::TensorOptions(device).dtype(at::kBFloat16));
  const auto ask = [&] {
    for (int i = 0; i < most_calls; ++i)
      ops::page_log_sum_exps(queries, 1, of, tables[static_cast<size_t>(i) % tables.size()], 0.1);
  };
  const double seconds = seconds_of(ask, most_calls), bound = bytes / bandwidth;
  std::printf("pages     %s D %4lld  G %2lld        R %4lld  rows %6lld         %9.1f us  %7.1f GB/s  bound %7.1f us  %.2f of it\n",
              shape.packed ? "int8  " : "keys  ", static_cast<long long>(shape.width),
              static_cast<long long>(shape.groups), static_cast<long long>(shape.query_rows),
              static_cast<long long>(shape.cached_rows), seconds * 1e6, bytes / seconds * 1e-9, bound * 1e6,
              bound / seconds);
}

}  // namespace

void measure_attention(c10::Device device, double bandwidth) {
  constexpr int64_t context = 131072;
  for (const int64_t width : {512, 576, 1024}) {
    for (const int64_t rows : {9, 32, 64}) measure({width, 1, true, 1, rows, context, false}, device, bandwidth);
  }
  const auto measure_packed = [&](int64_t width, int64_t query_rows, int64_t cached_rows) {
    measure({.width = width,
             .groups = 1,
             .latent = true,
             .sequences = 1,
             .query_rows = query_rows,
             .cached_rows = cached_rows,
             .packed = true},
            device, bandwidth);
  };
  for (const int64_t width : {512, 576, 1024}) {
    for (const int64_t rows : {9, 32, 64}) measure_packed(width, rows, context);
  }
  for (const int64_t rows : {1024, 8192, 16384}) measure_packed(1024, 32, rows);
  for (const int64_t rows : {1024, 8192, 16384}) measure({1024, 1, true, 1, 32, rows, false}, device, bandwidth);
  measure({1024, 1, true, 64, 32, context / 4, false}, device, bandwidth);
  measure({1024, 1, true, 64, 32, context, true}, device, bandwidth);
  for (const int64_t width : {512, 1024}) {  // a prompt of 64 tokens by 32 heads
    for (const int64_t rows : {context / 8, context}) {
      for (const bool zeros : {false, true})
        measure({.width = width,
                 .groups = 1,
                 .latent = true,
                 .sequences = 1,
                 .query_rows = 64 * 32,
                 .cached_rows = rows,
                 .zeros = zeros},
                device, bandwidth);
    }
  }
  for (const int64_t width : {64, 96, 128, 256}) measure({width, 32, false, 1, 1, 32768, false}, device, bandwidth);
  for (const int64_t width : {64, 128}) measure({width, 32, false, 1, 1, 2048, false, true}, device, bandwidth);
  measure({128, 32, false, 64, 1, 512, false, true}, device, bandwidth);
  measure({128, 8, false, 1, 4, 2048, false, true}, device, bandwidth);
  measure({64, 3, false, 1, 3, 2048, false, true}, device, bandwidth);
  measure({128, 8, false, 1, 4, context, false}, device, bandwidth);
  measure({128, 8, false, 16, 64, 4096, false}, device, bandwidth);
  measure({128, 32, false, 1, 64, 32768, false}, device, bandwidth);

  const auto measure_sums = [&](int64_t width, int64_t groups, int64_t query_rows, bool packed) {
    measure_page_sums({.width = width,
                       .groups = groups,
                       .latent = true,
                       .sequences = 1,
                       .query_rows = query_rows,
                       .cached_rows = context,
                       .packed = packed},
                      device, bandwidth);
  };
  for (const bool packed : {false, true}) {
    measure_sums(512, 1, 9, packed);
    measure_sums(576, 1, 9, packed);
    measure_sums(1024, 1, 32, packed);
  }
  measure_sums(64, 3, 3, false);
  measure_sums(128, 8, 4, false);
}

}  // namespace cepe::bench
