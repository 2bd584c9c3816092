// Rotary embedding: (x1*cos - x2*sin, x2*cos + x1*sin), each product rounded to x's type.
// Bound: x is read and y written once, 2 * rows * heads * width elements over the memory's bandwidth (4.2 to 4.8 TB/s
// on an H200); cos and sin are read by all heads of a row and come from cache. Below about a megabyte the launch.
// Design: a thread takes 16 bytes of the first half and the 16 that pair with them, so that no value is read twice;
// channels beyond the rotated ones are copied by threads of their own.
#include "ops/cuda/launch.h"
#include "ops/cuda/rotary.cuh"

namespace cepe::ops::cuda {
namespace {

// One thread for each pack of a head's pairs, then of its other channels: `pairs` + `others` a head.
template <class T, int count>
__global__ void __launch_bounds__(rotary_block)
    rotate_kernel(const RotaryRows run, unsigned pairs, unsigned others, unsigned threads) {
  const unsigned index = blockIdx.x * rotary_block + threadIdx.x;
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
  rotate_kernel<T, count><<<blocks_for(threads, rotary_block), rotary_block, 0, stream>>>(
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
