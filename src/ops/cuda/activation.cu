// Gated activation: round(activate(gate)) * up for rows [gate | up].
// Bound: 3 * rows * width elements (two read, one written) over the memory's bandwidth (4.2 to 4.8 TB/s on an H200);
// below about a megabyte the launch. The exponential costs less than its 16 bytes take.
// Design: a thread takes 16 bytes of gate, the 16 of up beside them, and writes 16, twice where there is enough; all
// loads are on their way at once.
#include "ops/cuda/activation.cuh"
#include "ops/cuda/elements.cuh"
#include "ops/cuda/in_line.cuh"
#include "ops/cuda/launch.h"

namespace cepe::ops::cuda {
namespace {

constexpr int block_threads = 256;

// A thread has `each` packs, a block's width apart.
template <class T, int count, Activation activation, int each>
__global__ void __launch_bounds__(block_threads)
    gated_kernel(const T* gate_up, T* y, unsigned packs_a_row, unsigned packs) {
  let_successor_begin();
  wait_for_predecessor();
  const unsigned first = blockIdx.x * block_threads * each + threadIdx.x;
  const int64_t width = int64_t{packs_a_row} * count;
  Pack<T, count> gates[each], ups[each];
#pragma unroll
  for (int k = 0; k < each; ++k) {
    const unsigned index = first + k * block_threads;
    if (index >= packs) break;
    const T* from = gate_up + (int64_t{index} + int64_t{index / packs_a_row} * packs_a_row) * count;
    gates[k] = load<count>(from);
    ups[k] = load<count>(from + width);
  }
#pragma unroll
  for (int k = 0; k < each; ++k) {
    const unsigned index = first + k * block_threads;
    if (index >= packs) break;
    Pack<T, count> results;
#pragma unroll
    for (int i = 0; i < count; ++i) {
      const float active = rounded<T>(activated<T, activation>(widened(gates[k].at[i])));
      results.at[i] = narrowed<T>(active * widened(ups[k].at[i]));
    }
    store<count>(y + int64_t{index} * count, results);
  }
}

template <class T, int count, Activation activation>
cudaError_t launch_with(const GatedRows& run, cudaStream_t stream) {
  const int64_t packs_a_row = run.width / count, packs = run.rows * packs_a_row;
  const auto launch = [&](auto* kernel, int each) {
    return launch_in_line(kernel, blocks_for(packs, block_threads * each), block_threads, 0, stream,
                          static_cast<const T*>(run.gate_up), static_cast<T*>(run.y),
                          static_cast<unsigned>(packs_a_row), static_cast<unsigned>(packs));
  };
  constexpr int64_t many = int64_t{132} * 2048 * 2;  // threads that fill the device, with two each
  return packs >= many ? launch(gated_kernel<T, count, activation, 2>, 2)
                       : launch(gated_kernel<T, count, activation, 1>, 1);
}

template <class T, Activation activation>
cudaError_t launch_as(const GatedRows& run, cudaStream_t stream) {
  const bool aligned = is_wide_aligned(run.gate_up) && is_wide_aligned(run.y) && run.width % wide<T> == 0;
  return aligned ? launch_with<T, wide<T>, activation>(run, stream) : launch_with<T, 1, activation>(run, stream);
}

template <Activation activation>
cudaError_t launch_activation(const GatedRows& run, cudaStream_t stream) {
  return run.bfloat16 ? launch_as<Bfloat16, activation>(run, stream) : launch_as<float, activation>(run, stream);
}

// The gradient of round(silu(gate)) * up: reads 3 elements, writes 2 (5 * rows * width over the memory's bandwidth).
template <class T, int count>
__global__ void __launch_bounds__(block_threads)
    gated_silu_gradient_kernel(const T* gate_up, const T* y_gradient, T* gate_up_gradient, unsigned packs_a_row,
                               unsigned packs) {
  const unsigned index = blockIdx.x * block_threads + threadIdx.x;
  if (index >= packs) return;
  const unsigned row = index / packs_a_row;
  const int64_t width = int64_t{packs_a_row} * count;
  const int64_t at_gate = (int64_t{index} + int64_t{row} * packs_a_row) * count;
  const Pack<T, count> gates = load<count>(gate_up + at_gate), ups = load<count>(gate_up + at_gate + width);
  const Pack<T, count> gradients = load<count>(y_gradient + int64_t{index} * count);
  Pack<T, count> gate_gradients, up_gradients;
#pragma unroll
  for (int i = 0; i < count; ++i) {
    const float gate = widened(gates.at[i]), gradient = widened(gradients.at[i]);
    const float sigmoid = 1.0f / (1.0f + expf(-gate));
    const float slope = sigmoid * (1.0f + gate * (1.0f - sigmoid));
    gate_gradients.at[i] = narrowed<T>(gradient * widened(ups.at[i]) * slope);
    up_gradients.at[i] = narrowed<T>(gradient * rounded<T>(gate * sigmoid));
  }
  store<count>(gate_up_gradient + at_gate, gate_gradients);
  store<count>(gate_up_gradient + at_gate + width, up_gradients);
}

template <class T, int count>
cudaError_t launch_gradient_with(const GatedSiluGradientRows& run, cudaStream_t stream) {
  const int64_t packs_a_row = run.width / count, packs = run.rows * packs_a_row;
  gated_silu_gradient_kernel<T, count><<<blocks_for(packs, block_threads), block_threads, 0, stream>>>(
      static_cast<const T*>(run.gate_up), static_cast<const T*>(run.y_gradient), static_cast<T*>(run.gate_up_gradient),
      static_cast<unsigned>(packs_a_row), static_cast<unsigned>(packs));
  return cudaGetLastError();
}

template <class T>
cudaError_t launch_gradient_as(const GatedSiluGradientRows& run, cudaStream_t stream) {
  const bool aligned = is_wide_aligned(run.gate_up) && is_wide_aligned(run.y_gradient) &&
                       is_wide_aligned(run.gate_up_gradient) && run.width % wide<T> == 0;
  return aligned ? launch_gradient_with<T, wide<T>>(run, stream) : launch_gradient_with<T, 1>(run, stream);
}

}  // namespace

cudaError_t launch(const GatedSiluGradientRows& run, cudaStream_t stream) {
  return run.bfloat16 ? launch_gradient_as<Bfloat16>(run, stream) : launch_gradient_as<float>(run, stream);
}

cudaError_t launch(const GatedRows& run, cudaStream_t stream) {
  switch (run.activation) {
    case Activation::silu:
      return launch_activation<Activation::silu>(run, stream);
    case Activation::gelu:
      return launch_activation<Activation::gelu>(run, stream);
    case Activation::gelu_tanh:
      return launch_activation<Activation::gelu_tanh>(run, stream);
    case Activation::relu:
      return launch_activation<Activation::relu>(run, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace cepe::ops::cuda
