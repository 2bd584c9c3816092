// rotate_into_cache (ops/rotary.h) where the cache keeps 8 bits with a scale a head (ops/int8_rows.h).
// Bound: queries, keys and values are read, queries written once in 2 bytes an element, the cache in one, over the
// memory's bandwidth; for a few tokens the launch.
// Design: a warp has a head, four neighbouring columns a lane, and finds its largest magnitude by itself. Slots and
// angles are read while the kernel before still runs.
#include "ops/cuda/in_line.cuh"
#include "ops/cuda/launch.h"
#include "ops/cuda/turned_fours.cuh"

namespace cepe::ops::cuda {
namespace {

constexpr int block_warps = 8;
constexpr int four_columns = warp * 4;  // that a warp has in one turn

enum class Part { query, key, value };

// Which head of which row a warp has.
struct TurnedHead {
  Part part;
  int row, head;  // head: among those of its part
  const Bfloat16* from;
};

__device__ inline TurnedHead head_of_warp(const RotaryCacheRows& run, unsigned number) {
  const auto heads = static_cast<unsigned>(run.heads), groups = static_cast<unsigned>(run.groups);
  const unsigned each = heads + 2 * groups, row = number / each, index = number % each;
  const auto at = [&](Part part, unsigned head, const void* from, int64_t row_stride, int64_t head_stride) {
    return TurnedHead{part, static_cast<int>(row), static_cast<int>(head),
                      static_cast<const Bfloat16*>(from) + row * row_stride + head * head_stride};
  };
  if (index < heads) return at(Part::query, index, run.queries, run.query_row, run.query_head);
  if (index < heads + groups) return at(Part::key, index - heads, run.keys, run.key_row, run.key_head);
  return at(Part::value, index - heads - groups, run.values, run.value_row, run.value_head);
}

template <int turns>
__global__ void __launch_bounds__(block_warps* warp) rotate_into_int8_cache(const RotaryCacheRows run, unsigned all) {
  const unsigned number = blockIdx.x * block_warps + threadIdx.x / warp;
  let_successor_begin();
  if (number >= all) return wait_for_predecessor();
  const TurnedHead head = head_of_warp(run, number);
  const int lane = static_cast<int>(threadIdx.x) % warp;
  const auto half = static_cast<int>(run.half), width = static_cast<int>(run.width);
  const auto column = [&](int turn) { return turn * four_columns + lane * 4; };
  const int64_t slot = run.slots[head.row];
  FourAngles angles[turns] = {};
#pragma unroll
  for (int turn = 0; turn < turns; ++turn)
    if (column(turn) < width) angles[turn] = angles_of(run, head.row, column(turn));
  wait_for_predecessor();
  float4 fours[turns];
#pragma unroll
  for (int turn = 0; turn < turns; ++turn) {
    const AskedFour asked =
        ask_for_four(column(turn) < width, head.from, column(turn), head.part == Part::value ? 0 : half);
    fours[turn] = head.part == Part::value ? four_of(asked.own) : turned(asked, angles[turn], column(turn), half);
  }
  if (head.part == Part::query) {
    auto* to = static_cast<Bfloat16*>(run.rotated) + (head.row * run.heads + head.head) * run.width;
#pragma unroll
    for (int turn = 0; turn < turns; ++turn)
      if (column(turn) < width) *reinterpret_cast<uint2*>(to + column(turn)) = packed_four(fours[turn]);
    return;
  }
  const float scale = as_cached<Int8>(fours);
  const CachedHead<Int8> cached(head.part == Part::key ? run.cache_keys : run.cache_values, run, slot, head.head);
#pragma unroll
  for (int turn = 0; turn < turns; ++turn)
    if (column(turn) < width) cached.store(column(turn), fours[turn]);
  if (lane == 0) cached.store_scale(scale);
}

}  // namespace

// Widths, halves and strides multiples of 4 elements; heads and cache aligned to 8 and 4 bytes, angles to 16.
cudaError_t launch_into_int8_cache(const RotaryCacheRows& run, cudaStream_t stream) {
  const auto all = static_cast<unsigned>(run.rows * (run.heads + 2 * run.groups));
  const auto kernel = run.width > four_columns ? rotate_into_int8_cache<2> : rotate_into_int8_cache<1>;
  return launch_in_line(kernel, blocks_for(all, block_warps), block_warps * warp, 0, stream, run, all);
}

}  // namespace cepe::ops::cuda
