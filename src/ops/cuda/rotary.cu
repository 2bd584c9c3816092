// Rotary embedding: (x1*cos - x2*sin, x2*cos + x1*sin), each product rounded to x's type.
// Bound: x is read and y written once, 2 * rows * heads * width elements over the memory's bandwidth (4.2 to 4.8 TB/s
// on an H200); cos and sin are read by all heads of a row and come from cache. Below about a megabyte the launch.
// Design: a thread takes 16 bytes of the first half and the 16 that pair with them, so that no value is read twice;
// channels beyond the rotated ones are copied by threads of their own.
#include "ops/cuda/elements.cuh"
#include "ops/cuda/launch.h"

namespace cepe::ops::cuda {
namespace {

constexpr int block_threads = 256;

// x1, x2 -> y1, y2. The intrinsics keep each product's rounding: no fused multiply-add.
template <class T, int count>
__device__ void rotate_pack(const T* x, T* y, const float* cos, const float* sin, float direction, int64_t half) {
  const Pack<T, count> first = load<count>(x), second = load<count>(x + half);
  Pack<T, count> rotated_first, rotated_second;
#pragma unroll
  for (int i = 0; i < count; ++i) {
    const float c = rounded<T>(cos[i]), s = direction * rounded<T>(sin[i]);
    const float x1 = widened(first.at[i]), x2 = widened(second.at[i]);
    rotated_first.at[i] = narrowed<T>(rounded<T>(__fmul_rn(x1, c)) - rounded<T>(__fmul_rn(x2, s)));
    rotated_second.at[i] = narrowed<T>(rounded<T>(__fmul_rn(x2, c)) + rounded<T>(__fmul_rn(x1, s)));
  }
  store<count>(y, rotated_first);
  store<count>(y + half, rotated_second);
}

// One thread for each pack of a head's pairs, then of its other channels: `pairs` + `others` a head.
template <class T, int count>
__global__ void __launch_bounds__(block_threads)
    rotate_kernel(const RotaryRows run, unsigned pairs, unsigned others, unsigned threads) {
  const unsigned index = blockIdx.x * block_threads + threadIdx.x;
  if (index >= threads) return;
  const unsigned each = pairs + others;
  const unsigned head_of_all = index / each, pack = index % each;
  const auto heads = static_cast<unsigned>(run.heads);
  const unsigned row = head_of_all / heads, head = head_of_all % heads;
  const T* x = static_cast<const T*>(run.x) + row * run.row_stride + head * run.head_stride;
  T* y = static_cast<T*>(run.y) + int64_t{head_of_all} * run.width;
  if (pack < pairs) {
    const int64_t i = int64_t{pack} * count;
    const int64_t angle = row * run.half + i;
    rotate_pack<T, count>(x + i, y + i, run.cos + angle, run.sin + angle, run.backwards ? -1.0f : 1.0f, run.half);
  } else {
    const int64_t i = 2 * run.half + int64_t{pack - pairs} * count;
    store<count>(y + i, load<count>(x + i));
  }
}

template <class T, int count>
cudaError_t launch_with(const RotaryRows& run, cudaStream_t stream) {
  const int64_t pairs = run.half / count, others = (run.width - 2 * run.half) / count;
  const int64_t threads = run.rows * run.heads * (pairs + others);
  rotate_kernel<T, count><<<blocks_for(threads, block_threads), block_threads, 0, stream>>>(
      run, static_cast<unsigned>(pairs), static_cast<unsigned>(others), static_cast<unsigned>(threads));
  return cudaGetLastError();
}

template <class T>
cudaError_t launch_as(const RotaryRows& run, cudaStream_t stream) {
  const auto whole = [](int64_t size) { return size % wide<T> == 0; };
  const bool aligned = is_wide_aligned(run.x) && is_wide_aligned(run.y) && whole(run.half) && whole(run.width) &&
                       whole(run.row_stride) && whole(run.head_stride);
  return aligned ? launch_with<T, wide<T>>(run, stream) : launch_with<T, 1>(run, stream);
}

}  // namespace

cudaError_t launch(const RotaryRows& run, cudaStream_t stream) {
  return run.bfloat16 ? launch_as<Bfloat16>(run, stream) : launch_as<float>(run, stream);
}

}  // namespace cepe::ops::cuda
