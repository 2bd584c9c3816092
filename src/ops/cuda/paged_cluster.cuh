// Attention over pages of separate keys and values for few query rows and short contexts, such as kept keys and values
// of a short document, in one launch on Hopper (sm_90).
// Bound: the bytes of keys and values / bandwidth. 32 groups of 2,048 rows of width 128 are 33.5 MB: 8 us at 4.2 TB/s.
// In that time a launch, a merging kernel and a trip of parts through memory all count.
// Design: cluster_rows.cuh.
// Where there are more units than blocks at one time, and each has a few tiles at most (a short text of heads that
// causal_rows.cuh does not take, whose every row is a sequence here), blocks are of two warps: of eight some would have
// no tile, and every unit's beginning and end take as long as what is between. What takes time beside the bytes is
// waiting, so what does not depend on the kernel before is done while that one ends: the tables are read, and the
// warp's first two tiles fetched into the second-level cache, where a row that is still to be written will be found as
// it is then.
#pragma once

#include "ops/cuda/cluster_rows.cuh"

namespace cepe::ops::cuda {

template <class Plan>
__device__ ClusterUnit cluster_unit(const PagedAttentionRun& run, unsigned number, int tiles_per_page) {
  ClusterUnit unit;
  const auto groups = static_cast<unsigned>(run.groups);
  unit.sequence = static_cast<int>(number / groups);
  unit.group = static_cast<int>(number % groups);
  unit.first_query = run.first_query[unit.sequence];
  unit.query_rows = min(run.first_query[unit.sequence + 1] - unit.first_query, Plan::rows);
  unit.first_page = run.first_page[unit.sequence];
  unit.tiles_per_page = tiles_per_page;
  unit.tiles = (run.first_page[unit.sequence + 1] - unit.first_page) * tiles_per_page;
  if (unit.query_rows <= 0) unit.tiles = 0;
  return unit;
}

// Into the second-level cache, a line a lane.
template <class Plan>
__device__ void fetch_tile(const PagedAttentionRun& run, const TableTile& tile, int group) {
  const int lane = static_cast<int>(threadIdx.x) % warp, row = lane / Plan::row_lines;
  if (row >= min(tile.rows(), Plan::tile)) return;
  const int column = lane % Plan::row_lines * Plan::line;
  const auto* keys = row_of_page<Plan>(tile.keys, tile.first + row, run.key_stride, group) + column;
  const auto* values = row_of_page<Plan>(tile.values, tile.first + row, run.value_stride, group) + column;
  asm volatile("prefetch.global.L2 [%0];\nprefetch.global.L2 [%1];" ::"l"(keys), "l"(values));
}

// A warp's queries, four columns a lane at a time, as they are in memory: bfloat16 in the first half, or float32.
template <class Plan>
using AskedQueries = uint4[Plan::query_turns];

// Zeros beyond the unit's rows. No branch: what is asked for next is not to wait for these.
template <class Plan>
__device__ void ask_for_queries(const PagedAttentionRun& run, const ClusterUnit& unit, AskedQueries<Plan>& to) {
  const int lane = static_cast<int>(threadIdx.x) % warp;
#pragma unroll
  for (int turn = 0; turn < Plan::query_turns; ++turn) {
    const int four = turn * warp + lane, row = four / Plan::row_fours;
    const int64_t at = ((unit.first_query + row) * run.groups + unit.group) * Plan::width + four % Plan::row_fours * 4;
    const bool there = four < Plan::fours && row < unit.query_rows;
    uint4& value = to[turn] = make_uint4(0, 0, 0, 0);
    asm volatile(
        "{\n.reg .pred there, wide;\n"
        "setp.ne.u32 there, %5, 0;\n"
        "setp.ne.u32 wide, %6, 0;\n"
        "@there ld.global.v2.u32 {%0, %1}, [%4];\n"
        "@wide ld.global.v2.u32 {%2, %3}, [%4 + 8];\n}"
        : "+r"(value.x), "+r"(value.y), "+r"(value.z), "+r"(value.w)
        : "l"(static_cast<const char*>(run.queries) + at * (run.bfloat16_queries ? 2 : 4)),
          "r"(static_cast<uint32_t>(there)), "r"(static_cast<uint32_t>(there && !run.bfloat16_queries))
        : "memory");
  }
}

// Rounded to bfloat16, then made ready for scores in base 2. They lie in shared memory, a copy a warp: in registers
// they would leave too few for what is under way from memory.
template <class Plan>
__device__ void put_queries(const PagedAttentionRun& run, const AskedQueries<Plan>& asked, float4 (&to)[Plan::fours]) {
  const int lane = static_cast<int>(threadIdx.x) % warp;
  const float scale = run.scale * 1.4426950408889634f;
#pragma unroll
  for (int turn = 0; turn < Plan::query_turns; ++turn) {
    const int four = turn * warp + lane;
    const uint4& value = asked[turn];
    float query[4] = {__uint_as_float(value.x), __uint_as_float(value.y), __uint_as_float(value.z),
                      __uint_as_float(value.w)};
    if (run.bfloat16_queries) {
      query[0] = lower(value.x);
      query[1] = upper(value.x);
      query[2] = lower(value.y);
      query[3] = upper(value.y);
    }
#pragma unroll
    for (float& column : query) column = rounded<Bfloat16>(column) * scale;
    if (four < Plan::fours) to[four] = make_float4(query[0], query[1], query[2], query[3]);
  }
  __syncwarp();
}

template <class Plan>
__global__ void __launch_bounds__(Plan::threads, Plan::resident)
    attend_in_cluster(const PagedAttentionRun run, int tiles_per_page) {
  __shared__ ClusterMemory<Plan> memory;
  let_successor_begin();
  const int warp_of_block = static_cast<int>(threadIdx.x) / warp;
  const uint32_t rank = rank_in_cluster(), blocks = blocks_in_cluster();
  const ClusterUnit unit = cluster_unit<Plan>(run, blockIdx.x / blocks, tiles_per_page);
  if (threadIdx.x == 0) memory.unit = unit;  // kept there: the tiles need all registers
  const int step = static_cast<int>(blocks) * Plan::warps;
  int index = static_cast<int>(rank) * Plan::warps + warp_of_block;
  auto& queries = memory.warp_sums[warp_of_block];  // until they are all used
  TileRows<Plan> keys, values;
  const auto ask_for_keys = [&](const TableTile& tile) {
    ask_for_rows<Plan>(keys, tile.keys, tile, run.key_stride, static_cast<int>(run.groups), unit.group);
  };
  const auto ask_for_values = [&](const TableTile& tile) {
    ask_for_rows<Plan>(values, tile.values, tile, run.value_stride, static_cast<int>(run.groups), unit.group);
  };
  const TableTile first = table_tile<Plan>(run, unit, index);
  TableTile next = table_tile<Plan>(run, unit, index + step);
  fetch_tile<Plan>(run, first, unit.group);
  fetch_tile<Plan>(run, next, unit.group);
  wait_for_predecessor();
  AskedQueries<Plan> asked;
  ask_for_queries<Plan>(run, unit, asked);
  ask_for_keys(first);
  ask_for_values(first);
  put_queries<Plan>(run, asked, queries);
  int rows = first.rows();
  WarpSums<Plan> own;
#pragma unroll
  for (int row = 0; row < Plan::rows; ++row) own.maximum[row] = -INFINITY;
#pragma unroll 1
  for (; index < unit.tiles; index += step) {
    float shares[Plan::rows][Plan::loads], weights[Plan::rows];
    multiply_keys<Plan>(queries, keys, shares);
    const float key_scale = keys.scale;
    ask_for_keys(next);
    soften_tile<Plan>(shares, rows, key_scale, values.scale, own, weights);
    add_values<Plan>(weights, values, own);
    ask_for_values(next);
    rows = next.rows();
    next = table_tile<Plan>(run, unit, index + 2 * step);
  }
  meet_in_cluster<Plan>(memory, own,
                        [&](int row, int four, float share, const float(&sum)[4], const MergedState& merged) {
                          const ClusterUnit& done = memory.unit;
                          const int64_t at = (done.first_query + row) * run.groups + done.group;
                          store_merged(run, at * Plan::width + four * 4, share, sum);
                          if (four == 0) store_log_sum_exp(run, at, merged);
                        });
  const ClusterUnit& done = memory.unit;
  if (rank_in_cluster() == 0 && done.sequence == run.sequences - 1) store_rows_of_no_sequence<Plan>(run, done.group);
  wait_for_cluster();  // no block leaves while its memory is read
}

}  // namespace cepe::ops::cuda
