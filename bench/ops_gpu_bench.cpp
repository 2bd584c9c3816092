// Speed of the fused CUDA kernels against what the GPU's memory gives to a copy. For each shape: time of a call from
// C++ (what a decoded token pays where nothing else is queued), time of the kernel alone (a recorded CUDA graph of
// calls, each on tensors of its own, so that nothing is found in cache unless it all fits), the bytes that must move
// over that time, and their ratio to the copy's bandwidth.
//   build/release/bin/ops_gpu_bench [device]
#include <ATen/core/grad_mode.h>
#include <ATen/cuda/CUDAGraph.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <functional>
#include <vector>

#include "ops/activation.h"
#include "ops/cuda/loaded.h"
#include "ops/device.h"
#include "ops/norm.h"
#include "ops/rotary.h"

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

void measure(const Case& what, at::Device device, at::ScalarType type, int64_t rows, int64_t width, double bandwidth) {
  std::vector<at::Tensor> inputs;
  for (int i = 0; i < calls; ++i) inputs.push_back(at::randn(what.shape(rows, width)).to(device, type));
  const double bytes = static_cast<double>(inputs.front().nbytes()) * (1 + what.written);
  const double kernel = seconds_of_kernel(inputs, what.operation);
  const double call = seconds_of_call(inputs.front(), what.operation);
  std::printf("%-11s %-9s %5lld x %-5lld  call %7.2f us  kernel %7.2f us  %7.1f GB/s  %5.2f of a copy\n", what.name,
              type == at::kFloat ? "float32" : "bfloat16", static_cast<long long>(rows), static_cast<long long>(width),
              call * 1e6, kernel * 1e6, bytes / kernel * 1e-9, bytes / kernel / bandwidth);
}

void run(const char* name) {
  const at::Device device = open_device(name);
  const at::NoGradGuard none;
  const double bandwidth = copy_bandwidth(device);
  std::printf("copy of 1 GiB: %.1f GB/s read and written; fused kernels %s\n", bandwidth * 1e-9,
              cuda::kernels() ? "loaded" : "MISSING: these are the compositions");
  for (const at::ScalarType type : {at::kBFloat16, at::kFloat}) {
    for (const int64_t width : {576, 4096}) {
      for (const int64_t rows : {1, 16, 256, 1024, 4096}) {
        for (const Case& what : cases_for(device, type, rows, width))
          measure(what, device, type, rows, width, bandwidth);
      }
    }
  }
}

}  // namespace
}  // namespace cepe::ops

int main(int argc, char** argv) {
  try {
    cepe::ops::run(argc > 1 ? argv[1] : "cuda");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ops_gpu_bench: %s\n", error.what());
    return 2;
  }
  return 0;
}
