// The second half of paged attention: parts of the same query row are merged by their log-sum-exps.
#pragma once

#include <cuda_runtime.h>

#include "ops/cuda/elements.cuh"
#include "ops/cuda/in_line.cuh"
#include "ops/cuda/page_walk.cuh"
#include "ops/cuda/row_values.cuh"

namespace cepe::ops::cuda {

inline constexpr int merge_warps = 8;
// Of sums in type T: the columns of a lane, 16 bytes, and of a warp.
template <class T>
inline constexpr int merge_columns = wide<T>* warp;

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

// Of a query row and group: its parts' states together, in base 2.
struct MergedState {
  float maximum = -INFINITY, denominator = 0;
  __device__ float base() const { return maximum == -INFINITY ? 0.0f : maximum; }
};

// Where the parts of a query row lie: slot i's sums at sums + i * sum_step, its state at states + i * state_step.
template <class T>
struct RowParts {
  const T* sums;  // from column 0
  const float2* states;
  int count, sum_step, state_step;
};

template <class T>
__device__ RowParts<T> parts_of(const Slots& slots, const Cut& cut, int width, const T* all_sums,
                                const float2* all_states) {
  const int64_t row = slots.first * cut.query_rows + slots.row;
  return {all_sums + row * width, all_states + row, slots.count, cut.query_rows * width, cut.query_rows};
}

template <class T, int count>
__device__ void add(float (&sum)[count], float weight, const Pack<T, count>& part) {
#pragma unroll
  for (int i = 0; i < count; ++i) sum[i] += weight * widened(part.at[i]);
}

template <int count>
__device__ void store_merged(const PagedAttentionRun& run, int64_t at, float share, const float (&sum)[count]) {
  Pack<float, count> result;
  Pack<Bfloat16, count> narrow;
#pragma unroll
  for (int i = 0; i < count; ++i) {
    result.at[i] = sum[i] * share;
    narrow.at[i] = narrowed<Bfloat16>(result.at[i]);
  }
  if (run.bfloat16_output) {
    store<count>(static_cast<Bfloat16*>(run.output) + at, narrow);
  } else {
    store<count>(static_cast<float*>(run.output) + at, result);
  }
}

__device__ inline void store_log_sum_exp(const PagedAttentionRun& run, int64_t at, const MergedState& merged) {
  run.log_sum_exp[at] = (merged.maximum + log2f(merged.denominator)) * 0.6931471805599453f;  // no row: log2(0)
}

// Zeros for the rows of no sequence, of one group, by a thread block.
template <class Plan>
__device__ void store_rows_of_no_sequence(const PagedAttentionRun& run, int group) {
  const int first = run.first_query[run.sequences], rows = static_cast<int>(run.query_rows) - first;
  constexpr int fours = Plan::width / 4;
  for (int i = static_cast<int>(threadIdx.x); i < rows * fours; i += Plan::threads) {
    const int64_t at = (first + i / fours) * run.groups + group;
    const int four = i % fours;
    const float zeros[4] = {};
    store_merged(run, at * Plan::width + four * 4, 0, zeros);
    if (four == 0) store_log_sum_exp(run, at, {});
  }
}

// Of every `step`-th slot from `first` on, a lane's columns together, and their state; every lane of a warp calls it.
// `at_once` are asked for at one time, and with them the states of all, one a lane: what follows is the time of a load.
template <int at_once, class T>
__device__ MergedState merge_slots(const RowParts<T>& parts, int first, int step, float (&sum)[wide<T>]) {
  static_assert(at_once <= warp);
  const int lane = static_cast<int>(threadIdx.x) % warp;
  MergedState state;
  for (; first < parts.count; first += at_once * step) {
    uint4 read[at_once];
#pragma unroll
    for (int i = 0; i < at_once; ++i) {
      const int slot = first + i * step;
      read[i] = load_where(slot < parts.count, parts.sums + slot * parts.sum_step);
    }
    const int slot = first + lane * step;
    const float2 own =
        lane < at_once && slot < parts.count ? parts.states[slot * parts.state_step] : make_float2(-INFINITY, 0);
    MergedState more = {fmaxf(state.maximum, largest_of_warp(own.x))};
    const float kept = exp2f(state.maximum - more.base()), weight = exp2f(own.x - more.base());
    more.denominator = kept * state.denominator + sum_of_warp(weight * own.y);
#pragma unroll
    for (float& column : sum) column *= kept;
#pragma unroll
    for (int i = 0; i < at_once; ++i) {
      add(sum, __shfl_sync(0xffffffffu, weight, i), *reinterpret_cast<const Pack<T, wide<T>>*>(&read[i]));
    }
    state = more;
  }
  return state;
}

// Four columns of what the warps of a block have merged.
struct MergedFour {
  MergedState state;
  Pack<float, 4> sum;
};
template <int warps, int fours>
__device__ MergedFour merged_four(const Pack<float, 4> (&partial)[warps][fours], const MergedState (&of_warps)[warps],
                                  int four) {
  MergedState merged;
#pragma unroll
  for (int i = 0; i < warps; ++i) merged.maximum = fmaxf(merged.maximum, of_warps[i].maximum);
  float total[4] = {};
#pragma unroll
  for (int i = 0; i < warps; ++i) {
    const float weight = exp2f(of_warps[i].maximum - merged.base());
    merged.denominator += weight * of_warps[i].denominator;
    add(total, weight, partial[i][four]);
  }
  return {merged, {total[0], total[1], total[2], total[3]}};
}

// The kernels begin while the parts' kernel ends: the tables are read before it has.

// One query row and group, `merge_columns` of its width: each of `warps` merges a share of the slots, then they meet. A
// call with few query rows is the time of its loads. Of blocks of 16 warps `together` share a multiprocessor: 192 of
// them, of 64 rows of width 576, are all there at one time by two; a few, alone, have registers for all loads of a
// warp.
template <class T, int warps, int at_once, int together>
__global__ void __launch_bounds__(warps* warp, together)
    merge_in_common(const PagedAttentionRun run, const Cut cut, const T* all_sums, const float2* all_states,
                    int blocks) {
  __shared__ Pack<float, 4> partial[warps][merge_columns<T> / 4];
  __shared__ MergedState of_warps[warps];
  const int lane = static_cast<int>(threadIdx.x) % warp, own = static_cast<int>(threadIdx.x) / warp;
  const int64_t at = blockIdx.x;
  const int width = static_cast<int>(run.width), first_column = static_cast<int>(blockIdx.y) * merge_columns<T>;
  const Slots slots = slots_of(run, cut, static_cast<int>(at / run.groups), static_cast<int>(at % run.groups), blocks);
  RowParts<T> parts = parts_of(slots, cut, width, all_sums, all_states);
  parts.sums += min(first_column + lane * wide<T>, width - wide<T>);  // of a column beyond the width nothing is kept
  let_successor_begin();
  wait_for_predecessor();
  float sum[wide<T>] = {};
  const MergedState state = merge_slots<at_once>(parts, own, warps, sum);
#pragma unroll
  for (int i = 0; i < wide<T>; i += 4) {
    partial[own][(lane * wide<T> + i) / 4] = {{sum[i], sum[i + 1], sum[i + 2], sum[i + 3]}};
  }
  if (lane == 0) of_warps[own] = state;
  __syncthreads();
  const int four = static_cast<int>(threadIdx.x);
  if (four >= merge_columns<T> / 4) return;
  const auto [merged, total] = merged_four(partial, of_warps, four);
  if (blockIdx.y == 0 && four == 0) store_log_sum_exp(run, at, merged);
  if (first_column + four * 4 >= width) return;
  store_merged(run, at * width + first_column + four * 4, merged.denominator > 0 ? 1 / merged.denominator : 0.0f,
               total.at);
}

// Many query rows have few parts each: a warp merges all parts of a row and group, `merge_columns` of its width;
// `across` such pieces make a row. Bound: bytes of parts read and of rows written, at the second-level cache's speed.
template <class T>
__global__ void __launch_bounds__(merge_warps* warp)
    merge_parts(const PagedAttentionRun run, const Cut cut, const T* all_sums, const float2* all_states, int blocks,
                int across) {
  const int lane = static_cast<int>(threadIdx.x) % warp, width = static_cast<int>(run.width);
  const int64_t piece = int64_t{blockIdx.x} * merge_warps + threadIdx.x / warp, at = quotient(piece, across);
  if (at >= run.query_rows * run.groups) return;
  const Slots slots =
      slots_of(run, cut, static_cast<int>(quotient(at, run.groups)), static_cast<int>(at % run.groups), blocks);
  RowParts<T> parts = parts_of(slots, cut, width, all_sums, all_states);
  const int of_row = static_cast<int>(piece - at * across), column = of_row * merge_columns<T> + lane * wide<T>;
  parts.sums += min(column, width - wide<T>);
  let_successor_begin();
  wait_for_predecessor();
  float sum[wide<T>] = {};
  const MergedState merged = merge_slots<4>(parts, 0, 1, sum);
  if (of_row == 0 && lane == 0) store_log_sum_exp(run, at, merged);
  if (column < width)
    store_merged(run, at * width + column, merged.denominator > 0 ? 1 / merged.denominator : 0.0f, sum);
}

// After the parts' kernel on the same stream.
template <class T>
cudaError_t launch_merge(const PagedAttentionRun& run, const Cut& cut, const T* sums, const float2* states, int blocks,
                         cudaStream_t stream) {
  constexpr int64_t many = 512;  // rows, that keep the device busy without sharing a row's parts
  const int64_t rows = run.query_rows * run.groups;
  const unsigned across = blocks_for(run.width, merge_columns<T>);
  if (rows >= many) {
    return launch_in_line(merge_parts<T>, dim3(blocks_for(rows * across, merge_warps)), merge_warps * warp, 0, stream,
                          run, cut, sums, states, blocks, static_cast<int>(across));
  }
  const auto launch = [&](auto* kernel, int warps) {
    return launch_in_line(kernel, dim3(static_cast<unsigned>(rows), across), warps * warp, 0, stream, run, cut, sums,
                          states, blocks);
  };
  constexpr int each = 9;  // parts of a warp: all are asked for at one time
  if (blocks <= 8 * each) return launch(merge_in_common<T, 8, each, 3>, 8);
  if (4 * rows * across <= 3 * multiprocessors) return launch(merge_in_common<T, 16, each, 1>, 16);
  return launch(merge_in_common<T, 16, each, 2>, 16);
}

}  // namespace cepe::ops::cuda
