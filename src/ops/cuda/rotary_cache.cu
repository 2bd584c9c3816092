// Rotary embedding of queries and keys, and keys and values into their slots of a cache: what a decoder layer does
// between its fused product and its attention, in one launch instead of four.
// Bound: queries, keys and values are read and written once, 2 * rows * (heads + 2 groups) * width elements over the
// memory's bandwidth; for a decoded token, 50 kB of a 7B model, the launch.
// Design: as rotary.cu, a thread 16 bytes of a head's first half and the 16 that pair with them; a value's threads
// copy. Slots and angles are read while the kernel before still runs.
#include "ops/cuda/in_line.cuh"
#include "ops/cuda/launch.h"
#include "ops/cuda/rotary.cuh"

namespace cepe::ops::cuda {
namespace {

// Where one head of one row comes from and goes to.
template <class T>
struct Head {
  const T* from;
  T* to;
  bool turned;
};

template <class T>
__device__ Head<T> head_at(const RotaryCacheRows& run, unsigned row, unsigned head) {
  const auto heads = static_cast<unsigned>(run.heads), groups = static_cast<unsigned>(run.groups);
  if (head < heads) {
    return {static_cast<const T*>(run.queries) + row * run.query_row + head * run.query_head,
            static_cast<T*>(run.rotated) + (row * run.heads + head) * run.width, true};
  }
  const bool key = head < heads + groups;
  const unsigned group = head - heads - (key ? 0 : groups);
  const int64_t at = (run.slots[row] * run.groups + group) * run.width;
  if (key) {
    return {static_cast<const T*>(run.keys) + row * run.key_row + group * run.key_head,
            static_cast<T*>(run.cache_keys) + at, true};
  }
  return {static_cast<const T*>(run.values) + row * run.value_row + group * run.value_head,
          static_cast<T*>(run.cache_values) + at, false};
}

// One thread for each pack of a head's pairs, then of its other channels: `pairs` + `others` a head.
template <class T, int count>
__global__ void __launch_bounds__(rotary_block)
    rotate_into_cache_kernel(const RotaryCacheRows run, unsigned pairs, unsigned others, unsigned threads) {
  const unsigned index = blockIdx.x * rotary_block + threadIdx.x;
  let_successor_begin();
  if (index >= threads) return wait_for_predecessor();
  const unsigned each = pairs + others, all = static_cast<unsigned>(run.heads + 2 * run.groups);
  const unsigned head_of_all = index / each, pack = index % each;
  const unsigned row = head_of_all / all;
  const Head<T> head = head_at<T>(run, row, head_of_all % all);
  const int64_t i = int64_t{pack} * count, angle = row * run.half + i;
  float cos[count] = {}, sin[count] = {};
  if (head.turned && pack < pairs) {
#pragma unroll
    for (int k = 0; k < count; ++k) {
      cos[k] = run.cos[angle + k];
      sin[k] = run.sin[angle + k];
    }
  }
  wait_for_predecessor();
  if (pack >= pairs) {
    const int64_t other = 2 * run.half + int64_t{pack - pairs} * count;
    store<count>(head.to + other, load<count>(head.from + other));
  } else if (head.turned) {
    rotate_pack<T, count>(head.from + i, head.to + i, cos, sin, 1.0f, run.half);
  } else {
    store<count>(head.to + i, load<count>(head.from + i));
    store<count>(head.to + run.half + i, load<count>(head.from + run.half + i));
  }
}

template <class T, int count>
cudaError_t launch_with(const RotaryCacheRows& run, cudaStream_t stream) {
  const int64_t pairs = run.half / count, others = (run.width - 2 * run.half) / count;
  const int64_t threads = run.rows * (run.heads + 2 * run.groups) * (pairs + others);
  return launch_in_line(rotate_into_cache_kernel<T, count>, blocks_for(threads, rotary_block), rotary_block, 0, stream,
                        run, static_cast<unsigned>(pairs), static_cast<unsigned>(others),
                        static_cast<unsigned>(threads));
}

template <class T>
cudaError_t launch_as(const RotaryCacheRows& run, cudaStream_t stream) {
  const auto whole = [](int64_t size) { return size % wide<T> == 0; };
  const bool aligned = is_wide_aligned(run.queries) && is_wide_aligned(run.keys) && is_wide_aligned(run.values) &&
                       is_wide_aligned(run.rotated) && is_wide_aligned(run.cache_keys) &&
                       is_wide_aligned(run.cache_values) && whole(run.half) && whole(run.width) &&
                       whole(run.query_row) && whole(run.query_head) && whole(run.key_row) && whole(run.key_head) &&
                       whole(run.value_row) && whole(run.value_head);
  return aligned ? launch_with<T, wide<T>>(run, stream) : launch_with<T, 1>(run, stream);
}

}  // namespace

cudaError_t launch(const RotaryCacheRows& run, cudaStream_t stream) {
  if (run.int8_cache) return launch_into_int8_cache(run, stream);
  return run.bfloat16 ? launch_as<Bfloat16>(run, stream) : launch_as<float>(run, stream);
}

}  // namespace cepe::ops::cuda
