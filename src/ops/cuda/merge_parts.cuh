// The second half of paged attention: parts of the same query row are merged by their log-sum-exps.
#pragma once

#include <cuda_runtime.h>

#include "ops/cuda/elements.cuh"
#include "ops/cuda/in_line.cuh"
#include "ops/cuda/page_walk.cuh"

namespace cepe::ops::cuda {

inline constexpr int merge_warps = 8;
inline constexpr int merge_columns = 4 * warp;

struct Slots {
  int64_t first = 0;
  int count = 0, row = 0;
};

// The slots that hold parts of one query row and group; none: a row of no sequence, or one without a page.
__device__ inline Slots slots_of(const PagedAttentionRun& run, const Cut& cut, int row, int group, int blocks) {
  int low = -1;  // the last sequence that begins at or before the row
  for (int first = 0; first < run.sequences; first += warp) {
    const int own = first + static_cast<int>(threadIdx.x) % warp;
    low += __popc(__ballot_sync(0xffffffffu, own < run.sequences && run.first_query[own] <= row));
  }
  if (row >= run.first_query[run.sequences]) return {};
  const SequenceWork work = work_of(run, cut, low);
  if (work.tiles == 0) return {};
  const Amount before = amount_before(run, cut, low);
  const Amount all = amount_before(run, cut, static_cast<int>(run.sequences));
  const int64_t total = all.tiles, busy = busy_blocks(cut, all, blocks);
  const int within = row - work.first_query;
  const int unit = group * work.blocks + within / cut.query_rows;
  const int64_t begin = before.tiles + int64_t{unit} * work.tiles;
  const int first = block_of(total, begin, busy), last = block_of(total, begin + work.tiles - 1, busy);
  return {int64_t{first} + before.units + unit, last - first + 1, within % cut.query_rows};
}

__device__ inline float largest_of_warp(float value) {
  for (int other = warp / 2; other > 0; other /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, other));
  return value;
}

// Of a query row and group: its parts' states together, in base 2.
struct MergedState {
  float maximum = -INFINITY, denominator = 0;
  __device__ float base() const { return maximum == -INFINITY ? 0.0f : maximum; }
};

// Every lane calls it and gets it; place(i) is that of the row's slot i.
template <class Place>
__device__ MergedState merged_state(const float2* all_states, int count, const Place& place) {
  const int lane = static_cast<int>(threadIdx.x) % warp;
  MergedState merged;
  for (int i = lane; i < count; i += warp) merged.maximum = fmaxf(merged.maximum, all_states[place(i)].x);
  merged.maximum = largest_of_warp(merged.maximum);
  for (int i = lane; i < count; i += warp) {
    const float2 state = all_states[place(i)];
    merged.denominator += state.y * exp2f(state.x - merged.base());
  }
  merged.denominator = sum_of_warp(merged.denominator);
  return merged;
}

__device__ inline float4 sum_of(const float4& a, float weight, const float4& b) {
  return make_float4(a.x + weight * b.x, a.y + weight * b.y, a.z + weight * b.z, a.w + weight * b.w);
}

__device__ inline void store_merged(const PagedAttentionRun& run, int64_t at, float share, const float4& sum) {
  const Pack<float, 4> result = {sum.x * share, sum.y * share, sum.z * share, sum.w * share};
  if (!run.bfloat16_output) return store<4>(static_cast<float*>(run.output) + at, result);
  Pack<Bfloat16, 4> narrow;
#pragma unroll
  for (int i = 0; i < 4; ++i) narrow.at[i] = narrowed<Bfloat16>(result.at[i]);
  store<4>(static_cast<Bfloat16*>(run.output) + at, narrow);
}

// One query row and group. In common: `merge_columns` of its width, of which each warp takes every eighth slot; else
// all of it, each warp columns of its own. Begins while the parts' kernel ends: the tables are read before it has.
template <bool in_common>
__global__ void __launch_bounds__(merge_warps* warp)
    merge_parts(const PagedAttentionRun run, const Cut cut, const float* all_sums, const float2* all_states,
                int blocks) {
  __shared__ float4 partial[merge_warps][warp];
  const int lane = static_cast<int>(threadIdx.x) % warp, own = static_cast<int>(threadIdx.x) / warp;
  const int64_t at = blockIdx.x;
  const int width = static_cast<int>(run.width);
  const int first_column = (in_common ? static_cast<int>(blockIdx.y) : own) * merge_columns + lane * 4;
  const int first_slot = in_common ? own : 0, slot_step = in_common ? merge_warps : 1;
  const Slots slots = slots_of(run, cut, static_cast<int>(at / run.groups), static_cast<int>(at % run.groups), blocks);
  const auto place = [&](int index) { return (slots.first + index) * cut.query_rows + slots.row; };
  let_successor_begin();
  wait_for_predecessor();
  const MergedState merged = merged_state(all_states, slots.count, place);
  if (blockIdx.y == 0 && threadIdx.x == 0) {  // no row: log2(0) = -infinity
    run.log_sum_exp[at] = (merged.maximum + log2f(merged.denominator)) * 0.6931471805599453f;
  }
  const float share = merged.denominator > 0 ? 1 / merged.denominator : 0.0f;
  for (int column = first_column; in_common || column < width; column += merge_warps * merge_columns) {
    float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll 4
    for (int i = first_slot; i < slots.count; i += slot_step) {
      if (column >= width) break;
      sum = sum_of(sum, exp2f(all_states[place(i)].x - merged.base()),
                   *reinterpret_cast<const float4*>(all_sums + place(i) * width + column));
    }
    if (!in_common) {
      store_merged(run, at * width + column, share, sum);
      continue;
    }
    partial[own][lane] = sum;
    __syncthreads();
    if (own != 0 || column >= width) return;
#pragma unroll
    for (int other = 1; other < merge_warps; ++other) sum = sum_of(sum, 1, partial[other][lane]);
    return store_merged(run, at * width + column, share, sum);
  }
}

// After the parts' kernel on the same stream.
inline cudaError_t launch_merge(const PagedAttentionRun& run, const Cut& cut, const float* sums, const float2* states,
                                int blocks, cudaStream_t stream) {
  constexpr int64_t many = 512;  // rows, that keep the device busy a block each
  const bool in_common = run.query_rows * run.groups < many || run.width < merge_warps * merge_columns / 2;
  const dim3 grid(static_cast<unsigned>(run.query_rows * run.groups),
                  in_common ? blocks_for(run.width, merge_columns) : 1);
  return launch_in_line(in_common ? merge_parts<true> : merge_parts<false>, grid, merge_warps * warp, 0, stream, run,
                        cut, sums, states, blocks);
}

}  // namespace cepe::ops::cuda
