// RMSNorm: weight * round(x * rsqrt(mean x^2 + eps)), of x + added where something is added first.
// Bound: x is read and y written once (twice each with `added`), 2 * rows * width elements over the memory's bandwidth
// (4.2 to 4.8 TB/s on an H200: 14 to 16 us for 4096 x 4096 in bfloat16); below about a megabyte the launch. Design: a
// team of 32 to 1024 threads a row, as few as can keep the row in registers (four 16-byte loads a thread), more where
// there are too few rows to fill the GPU; so memory is read once, and all loads of a thread are on their way together.
// Narrow teams share a block. Sums by warp shuffles, then through shared memory.
#include <algorithm>

#include "ops/cuda/elements.cuh"
#include "ops/cuda/in_line.cuh"
#include "ops/cuda/launch.h"
#include "ops/cuda/warp.cuh"

namespace cepe::ops::cuda {
namespace {

// The sum over a team: the threads of this row, blockDim.x of them; blockDim.y teams in the block. Every team calls it.
__device__ float sum_of_team(float value) {
  __shared__ float partial[1024 / warp];
  value = sum_of_warp(value);
  const int warps = static_cast<int>(blockDim.x) / warp;
  if (warps == 1) return value;
  float* own = partial + threadIdx.y * warps;
  if (threadIdx.x % warp == 0) own[threadIdx.x / warp] = value;
  __syncthreads();
  const int lane = static_cast<int>(threadIdx.x) % warp;
  return sum_of_warp(lane < warps ? own[lane] : 0.0f);
}

// kept: packs of a row that a thread keeps.
template <class T, int count, int kept>
__global__ void __launch_bounds__(1024) rms_norm_kernel(const RmsNormRows run) {
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  const bool there = row < run.rows;
  const auto packs = static_cast<int>(run.width / count);
  const T* x = static_cast<const T*>(run.x) + row * run.width;
  const T* weight = static_cast<const T*>(run.weight);
  // One pack is little enough to be kept from the beginning: with few rows the kernel is the time of its loads.
  constexpr bool early = kept == 1;
  Pack<T, count> values[kept], scales = {};
  if (early && there && static_cast<int>(threadIdx.x) < packs) scales = load<count>(weight + threadIdx.x * count);
  let_successor_begin();
  wait_for_predecessor();  // x and what is added may be its work; the weight is nobody's
  float squares = 0;
#pragma unroll
  for (int k = 0; k < kept; ++k) {
    const int pack = static_cast<int>(threadIdx.x + k * blockDim.x);
    if (there && pack < packs) values[k] = load<count>(x + pack * count);
  }
  if (run.added) {
    const T* added = static_cast<const T*>(run.added) + row * run.width;
    T* sum = static_cast<T*>(run.sum) + row * run.width;
#pragma unroll
    for (int k = 0; k < kept; ++k) {
      const int pack = static_cast<int>(threadIdx.x + k * blockDim.x);
      if (!there || pack >= packs) continue;
      const Pack<T, count> more = load<count>(added + pack * count);
#pragma unroll
      for (int i = 0; i < count; ++i) {
        values[k].at[i] = narrowed<T>(widened(values[k].at[i]) + widened(more.at[i]));
      }
      store<count>(sum + pack * count, values[k]);
    }
  }
#pragma unroll
  for (int k = 0; k < kept; ++k) {
    const int pack = static_cast<int>(threadIdx.x + k * blockDim.x);
    if (!there || pack >= packs) continue;
#pragma unroll
    for (int i = 0; i < count; ++i) squares += widened(values[k].at[i]) * widened(values[k].at[i]);
  }
  const float factor = rsqrtf(sum_of_team(squares) / static_cast<float>(run.width) + run.eps);
  T* y = static_cast<T*>(run.y) + row * run.width;
#pragma unroll
  for (int k = 0; k < kept; ++k) {
    const int pack = static_cast<int>(threadIdx.x + k * blockDim.x);
    if (!there || pack >= packs) continue;
    Pack<T, count> results;
    if (!early) scales = load<count>(weight + pack * count);
#pragma unroll
    for (int i = 0; i < count; ++i) {
      const float normed = widened(values[k].at[i]) * factor;
      const float scale = widened(scales.at[i]);
      results.at[i] = narrowed<T>(run.unit_offset ? normed * (1.0f + scale) : scale * rounded<T>(normed));
    }
    store<count>(y + pack * count, results);
  }
}

template <class T, int count>
cudaError_t launch_with(const RmsNormRows& run, cudaStream_t stream) {
  // Together with the weight no more than the 64 registers of a thread in a block of 1024.
  constexpr int kept = count == 1 ? 16 : 4;
  static_assert(1024 * kept * count >= widest_rms_norm);
  constexpr int64_t rows_that_fill_the_device = 132 * 8;
  const int64_t packs = run.width / count;
  const int64_t each = run.rows < rows_that_fill_the_device ? std::max(kept / 4, 1) : kept;
  int64_t team = warp;
  while (team < 1024 && team * each < packs) team *= 2;
  const dim3 block(static_cast<unsigned>(team), static_cast<unsigned>(std::max<int64_t>(1, 128 / team)));
  const auto kernel = team >= packs && count > 1 ? rms_norm_kernel<T, count, 1> : rms_norm_kernel<T, count, kept>;
  return launch_in_line(kernel, blocks_for(run.rows, block.y), block, 0, stream, run);
}

template <class T>
cudaError_t launch_as(const RmsNormRows& run, cudaStream_t stream) {
  const bool aligned = is_wide_aligned(run.x) && is_wide_aligned(run.weight) && is_wide_aligned(run.y) &&
                       is_wide_aligned(run.added) && is_wide_aligned(run.sum);
  if (aligned && run.width % wide<T> == 0) return launch_with<T, wide<T>>(run, stream);
  return launch_with<T, 1>(run, stream);
}

}  // namespace

cudaError_t launch(const RmsNormRows& run, cudaStream_t stream) {
  return run.bfloat16 ? launch_as<Bfloat16>(run, stream) : launch_as<float>(run, stream);
}

bool has_machine_code() {
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, rms_norm_kernel<float, 1, 16>);
  cudaGetLastError();  // an answer, not an error of the next launch
  return error == cudaSuccess;
}

}  // namespace cepe::ops::cuda
