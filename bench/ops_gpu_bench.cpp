// Speed of the fused CUDA kernels, their gradients and the loss against what the GPU's memory gives to a copy. For each
// shape: time of a call from C++ (what a decoded token pays where nothing else is queued), time of the kernel alone (a
// recorded CUDA graph of calls, each on tensors of its own, so that nothing is found in cache unless it all fits), the
// bytes that must move over that time, and their ratio to the copy's bandwidth.
// Attention over pages: attention_gpu_bench.cpp; of many rows over dense keys: dense_gpu_bench.cpp. Products of packed
// weights: packed_gpu_bench.cpp; of many rows: product_gpu_bench.cpp.
//   build/release/bin/ops_gpu_bench [device [attention | dense | packed | products]]     nothing else than that
#include <ATen/core/grad_mode.h>
#include <ATen/cuda/CUDAGraph.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <functional>
#include <vector>

#include "attention_gpu_bench.h"
#include "dense_gpu_bench.h"
#include "ops/activation.h"
#include "ops/cuda/loaded.h"
#include "ops/device.h"
#include "ops/norm.h"
#include "ops/norm_gradient.h"
#include "ops/rotary.h"
#include "ops/row_cross_entropy.h"
#include "packed_gpu_bench.h"
#include "product_gpu_bench.h"

namespace cepe::ops {
namespace {

using Operation = std::function<at::Tensor(const at::Tensor&)>;

constexpr int calls = 20;    // in a graph, and queued at once
constexpr int repeats = 20;  // the best counts

void wait() { cudaDeviceSynchronize(); }

// Seconds that `work` keeps the current stream busy.
double seconds_on_gpu(const std::function<void()>& work) {
  cudaEvent_t begin = nullptr, end = nullptr;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream().stream();
  cudaEventRecord(begin, stream);
  work();
  cudaEventRecord(end, stream);
  cudaEventSynchronize(end);
  float milliseconds = 0;
  cudaEventElapsedTime(&milliseconds, begin, end);
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return milliseconds * 1e-3;
}

// Of one kernel: calls on different inputs with outputs of their own, recorded and replayed.
double seconds_of_kernel(const std::vector<at::Tensor>& inputs, const Operation& operation) {
  const c10::cuda::CUDAStreamGuard guard(c10::cuda::getStreamFromPool());
  for (const at::Tensor& input : inputs) operation(input);
  wait();
  at::cuda::CUDAGraph graph;
  std::vector<at::Tensor> outputs;
  graph.capture_begin();
  for (const at::Tensor& input : inputs) outputs.push_back(operation(input));
  graph.capture_end();
  graph.replay();
  double best = 1e9;
  for (int i = 0; i < repeats; ++i) best = std::min(best, seconds_on_gpu([&] { graph.replay(); }));
  wait();
  return best / static_cast<double>(inputs.size());
}

// Of one call by the clock on the wall, many queued before one wait.
double seconds_of_call(const at::Tensor& input, const Operation& operation) {
  constexpr int queued = 200;
  operation(input);
  double best = 1e9;
  for (int i = 0; i < repeats; ++i) {
    wait();
    const auto start = std::chrono::steady_clock::now();
    for (int call = 0; call < queued; ++call) operation(input);
    wait();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / queued);
  }
  return best;
}

double copy_bandwidth(at::Device device) {
  const at::Tensor from = at::ones({int64_t{1} << 28}, at::TensorOptions(device).dtype(at::kFloat));
  at::Tensor to = at::empty_like(from);
  double best = 1e9;
  for (int i = 0; i < repeats; ++i) best = std::min(best, seconds_on_gpu([&] { to.copy_(from); }));
  return 2 * static_cast<double>(from.nbytes()) / best;
}

struct Case {
  const char* name;
  std::function<std::vector<int64_t>(int64_t rows, int64_t width)> shape;
  double written;  // bytes written for a byte read
  Operation operation;
};

std::vector<Case> cases_for(at::Device device, at::ScalarType type, int64_t rows, int64_t width) {
  const at::Tensor weight = at::ones({width}).to(device, type);
  const at::Tensor angles = at::rand({rows, 32}).to(device);
  const at::Tensor cos = angles.cos(), sin = angles.sin();
  return {
      {"rms_norm",
       [](int64_t n, int64_t c) {
         return std::vector<int64_t>{n, c};
       },
       1, [=](const at::Tensor& x) { return rms_norm(x, weight, 1e-5); }},
      {"rotate",
       [](int64_t n, int64_t c) {
         return std::vector<int64_t>{n, c / 64, 64};
       },
       1, [=](const at::Tensor& x) { return rotate(x, cos, sin); }},
      {"gated silu",
       [](int64_t n, int64_t c) {
         return std::vector<int64_t>{n, 2 * c};
       },
       0.5, [](const at::Tensor& x) { return gated(Activation::silu, x); }},
  };
}

// Gradients. What one reads lies in one input, so that each call finds it in memory and not in cache.
std::vector<Case> gradient_cases_for(at::Device device, at::ScalarType type, int64_t width) {
  const at::Tensor weight = at::ones({width}).to(device, type);
  const auto norm_gradient = [=](const at::Tensor& both, bool wants_weight) {
    const int64_t rows = both.size(0) / 2;
    const RmsNormGradients gradients =
        rms_norm_gradient(both.narrow(0, 0, rows), weight, both.narrow(0, rows, rows), 1e-5, false, true, wants_weight);
    return gradients.x;
  };
  const auto x_and_gradient = [](int64_t n, int64_t c) { return std::vector<int64_t>{2 * n, c}; };
  return {
      {"rms_norm gradient", x_and_gradient, 0.5, [=](const at::Tensor& both) { return norm_gradient(both, false); }},
      {"  and the weight's", x_and_gradient, 0.5, [=](const at::Tensor& both) { return norm_gradient(both, true); }},
      {"gated silu gradient",
       [](int64_t n, int64_t c) {
         return std::vector<int64_t>{3 * n, c};
       },
       2.0 / 3,
       [](const at::Tensor& both) {
         const int64_t rows = both.size(0) / 3, columns = both.size(1);
         at::Tensor result = at::empty_like(both.narrow(0, 0, 2 * rows));
         cuda::check(
             cuda::kernels()->gated_silu_gradient({.gate_up = both.const_data_ptr(),
                                                   .y_gradient = both.narrow(0, 2 * rows, rows).const_data_ptr(),
                                                   .gate_up_gradient = result.mutable_data_ptr(),
                                                   .rows = rows,
                                                   .width = columns,
                                                   .bfloat16 = both.scalar_type() == at::kBFloat16,
                                                   .device = both.device().index()}),
             "gated_silu_gradient");
         return result;
       }},
  };
}

// With the gradient in place, and without one (only read).
std::vector<Case> loss_cases_for(at::Device device, int64_t rows, int64_t vocabulary) {
  const at::TensorOptions options = at::TensorOptions(device).dtype(at::kFloat);
  const at::Tensor labels = at::randint(vocabulary, {rows}, options.dtype(at::kLong));
  const at::Tensor scale = at::full({1}, 1.0 / static_cast<double>(rows), options);
  const auto loss = [=](const at::Tensor& logits, bool wants_gradient) {
    at::Tensor losses = at::empty({logits.size(0)}, options);
    row_cross_entropy(logits, labels, scale, 0, wants_gradient, losses);
    return losses;
  };
  const auto shape = [](int64_t n, int64_t v) { return std::vector<int64_t>{n, v}; };
  return {{"cross-entropy value", shape, 0, [=](const at::Tensor& logits) { return loss(logits, false); }},
          {"  and its gradient", shape, 1, [=](const at::Tensor& logits) { return loss(logits, true); }}};
}

void measure(const Case& what, at::Device device, at::ScalarType type, int64_t rows, int64_t width, double bandwidth) {
  std::vector<at::Tensor> inputs;
  for (int i = 0; i < calls; ++i)
    inputs.push_back(at::randn(what.shape(rows, width), at::TensorOptions(device)).to(type));
  const double bytes = static_cast<double>(inputs.front().nbytes()) * (1 + what.written);
  const double kernel = seconds_of_kernel(inputs, what.operation);
  const double call = seconds_of_call(inputs.front(), what.operation);
  std::printf("%-19s %-9s %5lld x %-6lld  call %7.2f us  kernel %7.2f us  %7.1f GB/s  %5.2f of a copy\n", what.name,
              type == at::kFloat ? "float32" : "bfloat16", static_cast<long long>(rows), static_cast<long long>(width),
              call * 1e6, kernel * 1e6, bytes / kernel * 1e-9, bytes / kernel / bandwidth);
}

void run(const char* name, const char* only) {
  const at::Device device = open_device(name);
  const at::NoGradGuard none;
  const double bandwidth = copy_bandwidth(device);
  std::printf("copy of 1 GiB: %.1f GB/s read and written; fused kernels %s\n", bandwidth * 1e-9,
              cuda::kernels() ? "loaded" : "MISSING: these are the compositions");
  const auto wanted = [&](const char* part) { return !*only || std::strcmp(only, part) == 0; };
  if (cuda::kernels() && wanted("attention")) bench::measure_attention(device, bandwidth);
  if (cuda::kernels() && wanted("dense")) bench::measure_dense_attention(device);
  if (cuda::kernels() && wanted("packed")) bench::measure_packed(device, bandwidth);
  if (cuda::kernels() && wanted("products")) bench::measure_products(device);
  if (*only) return;
  for (const at::ScalarType type : {at::kBFloat16, at::kFloat}) {
    for (const int64_t width : {576, 4096}) {
      for (const int64_t rows : {1, 16, 256, 1024, 4096}) {
        for (const Case& what : cases_for(device, type, rows, width))
          measure(what, device, type, rows, width, bandwidth);
        if (!cuda::kernels()) continue;
        for (const Case& what : gradient_cases_for(device, type, width))
          measure(what, device, type, rows, width, bandwidth);
      }
    }
    for (const int64_t vocabulary : {49152, 128256}) {
      for (const int64_t rows : {16, 256, 2048}) {
        for (const Case& what : loss_cases_for(device, rows, vocabulary))
          measure(what, device, type, rows, vocabulary, bandwidth);
      }
    }
  }
}

}  // namespace
}  // namespace cepe::ops

int main(int argc, char** argv) {
  try {
    cepe::ops::run(argc > 1 ? argv[1] : "cuda", argc > 2 ? argv[2] : "");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ops_gpu_bench: %s\n", error.what());
    return 2;
  }
  return 0;
}
