#include "attention_gpu_bench.h"

#include <ATen/cuda/CUDAGraph.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "ops/paged_attention.h"

namespace cepe::bench {
namespace {

constexpr double tensor_peak = 989e12;  // dense bfloat16 of an H100 or H200, by the datasheet
constexpr int calls = 5;                // in a graph
constexpr int repeats = 11;             // the median counts
constexpr int64_t page_rows = 256;

struct Shape {
  int64_t width, groups;
  bool latent;
  int64_t sequences, query_rows, cached_rows;  // of each sequence; query rows: of each group
  bool shared;                                 // one context for all
};

std::vector<ops::RowPage> pages_of(const Shape& shape, at::Device device) {
  std::vector<ops::RowPage> pages;
  for (int64_t row = 0; row < shape.cached_rows; row += page_rows) {
    const auto random = [&] {
      return at::randn({page_rows, shape.groups, shape.width}, at::TensorOptions(device).dtype(at::kBFloat16));
    };
    const at::Tensor keys = random();
    pages.push_back({keys, shape.latent ? keys : random()});
  }
  return pages;
}

// Of one call: recorded, so that launches do not wait for the host.
double seconds_of(const ops::BatchQueries& queries, const ops::PageTable& table, double scale) {
  const c10::cuda::CUDAStreamGuard guard(c10::cuda::getStreamFromPool());
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream().stream();
  ops::BatchAttention result = ops::paged_attention(queries, table, scale, at::kBFloat16);
  cudaDeviceSynchronize();
  at::cuda::CUDAGraph graph;
  graph.capture_begin();
  for (int i = 0; i < calls; ++i) ops::paged_attention(queries, table, scale, result);
  graph.capture_end();
  graph.replay();
  cudaEvent_t begin = nullptr, end = nullptr;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  std::vector<double> seconds;
  for (int i = 0; i < repeats; ++i) {
    cudaEventRecord(begin, stream);
    graph.replay();
    cudaEventRecord(end, stream);
    cudaEventSynchronize(end);
    float milliseconds = 0;
    cudaEventElapsedTime(&milliseconds, begin, end);
    seconds.push_back(milliseconds * 1e-3 / calls);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  cudaDeviceSynchronize();
  std::nth_element(seconds.begin(), seconds.begin() + repeats / 2, seconds.end());
  return seconds[repeats / 2];
}

void measure(const Shape& shape, at::Device device, double bandwidth) {
  std::vector<std::vector<ops::RowPage>> pages;
  std::vector<int32_t> first = {0};
  for (int64_t i = 0; i < shape.sequences; ++i) {
    pages.push_back(shape.shared && i > 0 ? pages.front() : pages_of(shape, device));
    first.push_back(first.back() + static_cast<int32_t>(shape.query_rows));
  }
  const ops::BatchQueries queries = {
      at::randn({first.back(), shape.groups, shape.width}, at::TensorOptions(device).dtype(at::kBFloat16)),
      at::tensor(first, at::kInt).to(device), shape.query_rows};
  const double seconds =
      seconds_of(queries, ops::page_table(pages, device), 1 / std::sqrt(static_cast<double>(shape.width)));
  const double rows = static_cast<double>(shape.cached_rows * shape.groups) * static_cast<double>(shape.width);
  const double bytes = rows * 2 * (shape.latent ? 1 : 2) * (shape.shared ? 1 : static_cast<double>(shape.sequences));
  const double operations = 4 * rows * static_cast<double>(shape.query_rows * shape.sequences);
  const double bound = std::max(bytes / bandwidth, operations / tensor_peak);
  std::printf(
      "attention %s D %4lld  G %2lld  B %2lld  R %4lld  rows %6lld%s  %9.1f us  %7.1f GB/s  %6.1f TFLOP/s  bound %7.1f "
      "us  %.2f of it\n",
      shape.latent ? "latent" : "kept  ", static_cast<long long>(shape.width), static_cast<long long>(shape.groups),
      static_cast<long long>(shape.sequences), static_cast<long long>(shape.query_rows),
      static_cast<long long>(shape.cached_rows), shape.shared ? " shared" : "       ", seconds * 1e6,
      bytes / seconds * 1e-9, operations / seconds * 1e-12, bound * 1e6, bound / seconds);
}

}  // namespace

void measure_attention(c10::Device device, double bandwidth) {
  constexpr int64_t context = 131072;
  for (const int64_t width : {512, 576, 1024}) {
    for (const int64_t rows : {9, 32, 64}) measure({width, 1, true, 1, rows, context, false}, device, bandwidth);
  }
  for (const int64_t rows : {1024, 8192, 16384}) measure({1024, 1, true, 1, 32, rows, false}, device, bandwidth);
  measure({1024, 1, true, 64, 32, context / 4, false}, device, bandwidth);
  measure({1024, 1, true, 64, 32, context, true}, device, bandwidth);
  for (const int64_t width : {512, 1024}) {  // a prompt of 64 tokens by 32 heads
    for (const int64_t rows : {context / 8, context}) measure({width, 1, true, 1, 64 * 32, rows, false}, device, bandwidth);
  }
  for (const int64_t width : {64, 96, 128, 256}) measure({width, 32, false, 1, 1, 32768, false}, device, bandwidth);
  measure({128, 8, false, 1, 4, context, false}, device, bandwidth);
  measure({128, 8, false, 16, 64, 4096, false}, device, bandwidth);
  measure({128, 32, false, 1, 64, 32768, false}, device, bandwidth);
}

}  // namespace cepe::bench
