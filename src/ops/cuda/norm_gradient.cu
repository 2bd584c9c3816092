// Gradient of RMSNorm. With n = x r, r = rsqrt(mean x^2 + eps), g = w dy: dx = r (g - n mean(g n)), dw = sum of dy n
// over the rows (n rounded as the forward pass rounded it). Bound: x and dy are read and dx written once, 3 * rows *
// width elements over the memory's bandwidth (4.2 to 4.8 TB/s on an H200: 21 to 24 us for 4096 x 4096 in bfloat16);
// below about a megabyte the launches. dw adds 4 to 17 MB that are written and read again in cache. Design: a team of
// 32 to 512 threads keeps a row's x and dy in registers, as in norm.cu. For dw a team takes every
// rms_norm_weight_sums-th row, keeps the sums of its columns in registers and writes them once; a second kernel adds
// the teams' sums in a fixed order. No atomics: the same bits each time.
#include <algorithm>

#include "ops/cuda/elements.cuh"
#include "ops/cuda/launch.h"
#include "ops/cuda/warp.cuh"

namespace cepe::ops::cuda {
namespace {

constexpr int most_threads = 512;

struct Sums {
  float squares, products;
};

// The sums over a team (blockDim.x threads, blockDim.y teams in the block). Every thread of the block calls it.
// `partial` is one of two, in turns: a team may still read the last one while another writes this one.
__device__ Sums sums_of_team(Sums sums, Sums* partial) {
  sums = {sum_of_warp(sums.squares), sum_of_warp(sums.products)};
  const int warps = static_cast<int>(blockDim.x) / warp;
  if (warps == 1) return sums;
  Sums* own = partial + threadIdx.y * warps;
  const int lane = static_cast<int>(threadIdx.x) % warp;
  if (lane == 0) own[threadIdx.x / warp] = sums;
  __syncthreads();
  const Sums part = lane < warps ? own[lane] : Sums{0.0f, 0.0f};
  return {sum_of_warp(part.squares), sum_of_warp(part.products)};
}

// kept: packs of a row that a thread keeps. teams: those of the whole grid that take rows.
template <class T, int count, int kept, bool sums_weight>
__global__ void __launch_bounds__(most_threads) rms_norm_gradient_kernel(const RmsNormGradientRows run, int64_t teams) {
  __shared__ Sums partial[2][most_threads / warp];
  const int64_t team = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  const auto packs = static_cast<int>(run.width / count);
  const T* weight = static_cast<const T*>(run.weight);
  const float offset = run.unit_offset ? 1.0f : 0.0f;
  float sums[sums_weight ? kept * count : 1] = {};
  int turn = 0;
  for (int64_t first = 0; first < run.rows; first += teams, turn ^= 1) {  // the same number of times in all threads
    const int64_t row = first + team;
    const bool there = team < teams && row < run.rows;
    const T* x = static_cast<const T*>(run.x) + row * run.width;
    const T* dy = static_cast<const T*>(run.y_gradient) + row * run.width;
    Pack<T, count> values[kept], gradients[kept];
#pragma unroll
    for (int k = 0; k < kept; ++k) {
      const int pack = static_cast<int>(threadIdx.x + k * blockDim.x);
      if (!there || pack >= packs) continue;
      values[k] = load<count>(x + pack * count);
      gradients[k] = load<count>(dy + pack * count);
    }
    Sums total = {0.0f, 0.0f};
#pragma unroll
    for (int k = 0; k < kept; ++k) {
      const int pack = static_cast<int>(threadIdx.x + k * blockDim.x);
      if (!there || pack >= packs) continue;
      const Pack<T, count> scales = load<count>(weight + pack * count);
#pragma unroll
      for (int i = 0; i < count; ++i) {
        const float value = widened(values[k].at[i]);
        total.squares += value * value;
        total.products += widened(gradients[k].at[i]) * (offset + widened(scales.at[i])) * value;
      }
    }
    total = sums_of_team(total, partial[turn]);
    const auto width = static_cast<float>(run.width);
    const float factor = rsqrtf(total.squares / width + run.eps);
    const float shrink = factor * factor * (factor * total.products / width);
    T* dx = static_cast<T*>(run.x_gradient);
    if (dx) dx += row * run.width;
#pragma unroll
    for (int k = 0; k < kept; ++k) {
      const int pack = static_cast<int>(threadIdx.x + k * blockDim.x);
      if (!there || pack >= packs) continue;
      const Pack<T, count> scales = load<count>(weight + pack * count);
      Pack<T, count> results;
#pragma unroll
      for (int i = 0; i < count; ++i) {
        const float value = widened(values[k].at[i]), gradient = widened(gradients[k].at[i]);
        results.at[i] = narrowed<T>(gradient * (offset + widened(scales.at[i])) * factor - value * shrink);
        if constexpr (sums_weight) {
          const float normed = value * factor;
          sums[k * count + i] += gradient * (run.unit_offset ? normed : rounded<T>(normed));
        }
      }
      if (dx) store<count>(dx + pack * count, results);
    }
  }
  if constexpr (sums_weight) {
    if (team >= teams) return;
#pragma unroll
    for (int k = 0; k < kept; ++k) {
      const int pack = static_cast<int>(threadIdx.x + k * blockDim.x);
      if (pack >= packs) continue;
#pragma unroll
      for (int i = 0; i < count; ++i) run.weight_sums[team * run.width + pack * count + i] = sums[k * count + i];
    }
  }
}

// Adds the teams' sums: a column a lane, 32 strands of teams, then the strands.
template <class T>
__global__ void __launch_bounds__(warp* warp) add_weight_sums_kernel(const RmsNormGradientRows run, int64_t teams) {
  __shared__ float strands[warp][warp];
  const int64_t column = int64_t{blockIdx.x} * warp + threadIdx.x;
  float sum = 0;
  if (column < run.width) {
    for (int64_t team = threadIdx.y; team < teams; team += warp) sum += run.weight_sums[team * run.width + column];
  }
  strands[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= run.width) return;
  float total = 0;
#pragma unroll
  for (int strand = 0; strand < warp; ++strand) total += strands[strand][threadIdx.x];
  static_cast<T*>(run.weight_gradient)[column] = narrowed<T>(total);
}

template <class T, int count>
cudaError_t launch_with(const RmsNormGradientRows& run, cudaStream_t stream) {
  // What fits into the registers of a thread three times: x, dy and, in float32, the sums.
  constexpr int kept = count == 1 ? 16 : 16 / static_cast<int>(sizeof(T) == 2 ? 8 : 4);
  static_assert(most_threads * kept * count >= widest_rms_norm_gradient);
  constexpr int64_t rows_that_fill_the_device = 132 * 8;
  const int64_t packs = run.width / count;
  const int64_t each = run.rows < rows_that_fill_the_device ? std::max(kept / 4, 1) : kept;
  int64_t team = warp;
  while (team < most_threads && team * each < packs) team *= 2;
  const dim3 block(static_cast<unsigned>(team), static_cast<unsigned>(std::max<int64_t>(1, 128 / team)));
  const int64_t teams = run.weight_gradient ? rms_norm_weight_sums(run.rows, run.width) : run.rows;
  const unsigned blocks = blocks_for(teams, block.y);
  if (!run.weight_gradient) {
    rms_norm_gradient_kernel<T, count, kept, false><<<blocks, block, 0, stream>>>(run, teams);
    return cudaGetLastError();
  }
  rms_norm_gradient_kernel<T, count, kept, true><<<blocks, block, 0, stream>>>(run, teams);
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;
  add_weight_sums_kernel<T><<<blocks_for(run.width, warp), dim3(warp, warp), 0, stream>>>(run, teams);
  return cudaGetLastError();
}

template <class T>
cudaError_t launch_as(const RmsNormGradientRows& run, cudaStream_t stream) {
  const bool aligned = is_wide_aligned(run.x) && is_wide_aligned(run.weight) && is_wide_aligned(run.y_gradient) &&
                       is_wide_aligned(run.x_gradient) && run.width % wide<T> == 0;
  return aligned ? launch_with<T, wide<T>>(run, stream) : launch_with<T, 1>(run, stream);
}

}  // namespace

cudaError_t launch(const RmsNormGradientRows& run, cudaStream_t stream) {
  return run.bfloat16 ? launch_as<Bfloat16>(run, stream) : launch_as<float>(run, stream);
}

}  // namespace cepe::ops::cuda
