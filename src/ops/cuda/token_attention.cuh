// Self-attention of one decoded token of each sequence (ops/token_attention.h) on Hopper (sm_90): its heads are turned,
// its key and value go into the cache, and all cached rows are attended to, in one launch.
// Bound: the bytes of the cached rows / bandwidth. 32 groups of 2,048 rows of width 128 are 33.5 MB: 8 us at 4.2 TB/s.
// How near: 10.1 to 11.6 us within a layer, from the end of the product before; 14.3 over a cache in 8 bits, whose
// bytes are half as many. Design: cluster_rows.cuh. What takes time beside the bytes is waiting for the product that
// makes queries, key and value. So the older rows, which do not depend on it, are on their way while it ends: a warp's
// first tile to registers, its second to shared memory. Every warp turns the queries for itself, and the newest row
// does not go through the cache: one warp begins with it, as it will be read there, and writes it.
#pragma once

#include "ops/cuda/cluster_rows.cuh"
#include "ops/cuda/turned_fours.cuh"

namespace cepe::ops::cuda {

// A group's heads, as its clusters share them: up to four each, which is what registers hold. Each of the clusters
// reads the group's cached rows.
struct HeadCut {
  int heads, clusters;
  int rows;  // of each cluster but the last
};

inline HeadCut head_cut(const TokenAttentionRun& run) {
  const int heads = static_cast<int>(run.tokens.heads / run.tokens.groups);
  const int clusters = (heads + most_cluster_rows - 1) / most_cluster_rows;
  return {heads, clusters, (heads + clusters - 1) / clusters};
}

template <class Plan>
struct TokenPlan {
  static constexpr int head_turns = (Plan::row_fours + warp - 1) / warp;  // in which a warp has a head's columns
  static constexpr int staged_words = 2 * Plan::loads * warp;             // of a warp
  static constexpr int word_bytes = Plan::warps * staged_words * static_cast<int>(sizeof(typename Plan::Words));
  static constexpr int shared_bytes = word_bytes + (Plan::Cached::scaled ? Plan::warps * 2 * warp * 4 : 0);
  __device__ static int column(int turn) {
    return (turn * warp + static_cast<int>(threadIdx.x) % warp) % Plan::row_fours * 4;
  }
};

__device__ inline ClusterUnit token_unit(const TokenAttentionRun& run, const HeadCut& cut, unsigned number,
                                         int tiles_per_page) {
  ClusterUnit unit;
  const auto groups = static_cast<unsigned>(run.tokens.groups), clusters = static_cast<unsigned>(cut.clusters);
  const int first = static_cast<int>(number % clusters) * cut.rows;
  const unsigned group = number / clusters;
  unit.sequence = static_cast<int>(group / groups);
  unit.group = static_cast<int>(group % groups);
  unit.query_rows = min(cut.heads - first, cut.rows);
  unit.first_query = static_cast<int>(group) * cut.heads + first;
  unit.first_page = run.pages.first_page[unit.sequence];
  unit.tiles_per_page = tiles_per_page;
  unit.tiles = (run.pages.first_page[unit.sequence + 1] - unit.first_page) * tiles_per_page;
  return unit;
}

// The group's heads of the token, turned and made ready for scores in base 2; zeros beyond them.
template <class Plan>
struct TokenQueries {
  AskedFour asked[Plan::query_turns];

  __device__ void ask(const TokenAttentionRun& run, const ClusterUnit& unit) {
    const RotaryCacheRows& tokens = run.tokens;
    const auto* from = static_cast<const Bfloat16*>(tokens.queries) + unit.sequence * tokens.query_row;
    const int64_t first = unit.first_query - int64_t{unit.sequence} * tokens.heads;
#pragma unroll
    for (int turn = 0; turn < Plan::query_turns; ++turn) {
      const int four = turn * warp + static_cast<int>(threadIdx.x) % warp, row = four / Plan::row_fours;
      const bool there = four < Plan::fours && row < unit.query_rows;
      asked[turn] = ask_for_four(there, from + (first + row) * tokens.query_head, TokenPlan<Plan>::column(turn),
                                 static_cast<int>(tokens.half));
    }
  }
  __device__ void put(const TokenAttentionRun& run, const FourAngles (&angles)[TokenPlan<Plan>::head_turns],
                      float4 (&to)[Plan::fours]) const {
    const float scale = run.pages.scale * 1.4426950408889634f;
#pragma unroll
    for (int turn = 0; turn < Plan::query_turns; ++turn) {
      const int four = turn * warp + static_cast<int>(threadIdx.x) % warp;
      const float4 query = turned(asked[turn], angles[turn % TokenPlan<Plan>::head_turns],
                                  TokenPlan<Plan>::column(turn), static_cast<int>(run.tokens.half));
      if (four < Plan::fours)
        to[four] = make_float4(query.x * scale, query.y * scale, query.z * scale, query.w * scale);
    }
    __syncwarp();
  }
};

// The token's own key and value of a group, by one warp.
template <class Plan>
struct NewestRow {
  using Element = typename Plan::Element;
  static constexpr int turns = TokenPlan<Plan>::head_turns;
  AskedFour key[turns];
  uint4 value;  // the columns that a lane has of a tile

  __device__ void ask(const TokenAttentionRun& run, const ClusterUnit& unit) {
    const RotaryCacheRows& tokens = run.tokens;
    const auto* keys = static_cast<const Bfloat16*>(tokens.keys) + unit.sequence * tokens.key_row;
    const auto* values = static_cast<const Bfloat16*>(tokens.values) + unit.sequence * tokens.value_row;
#pragma unroll
    for (int turn = 0; turn < turns; ++turn) {
      key[turn] = ask_for_four(true, keys + unit.group * tokens.key_head, TokenPlan<Plan>::column(turn),
                               static_cast<int>(tokens.half));
    }
    const int lane = static_cast<int>(threadIdx.x) % warp;
    value = load_where(true, values + unit.group * tokens.value_head + lane % Plan::lanes * 8);
  }

  // Into the warp's sums, which had nothing; and into the cache, if it `stores`.
  __device__ void put(const TokenAttentionRun& run, const ClusterUnit& unit, int64_t slot,
                      const FourAngles (&angles)[turns], const float4 (&queries)[Plan::fours], bool stores,
                      WarpSums<Plan>& own) const {
    const RotaryCacheRows& tokens = run.tokens;
    const int lane = static_cast<int>(threadIdx.x) % warp;
    const CachedHead<Element> cached_key(tokens.cache_keys, tokens, slot, unit.group);
    const CachedHead<Element> cached_value(tokens.cache_values, tokens, slot, unit.group);
    float4 keys[turns], values[2] = {four_of(make_uint2(value.x, value.y)), four_of(make_uint2(value.z, value.w))};
#pragma unroll
    for (int turn = 0; turn < turns; ++turn)
      keys[turn] = turned(key[turn], angles[turn], TokenPlan<Plan>::column(turn), static_cast<int>(tokens.half));
    const float key_scale = as_cached<Element>(keys), value_scale = as_cached<Element>(values);
    float scores[Plan::rows] = {};
#pragma unroll
    for (int turn = 0; turn < turns; ++turn) {
      const int column = TokenPlan<Plan>::column(turn);
      if (turn * warp + lane >= Plan::row_fours) continue;
      const float4& four = keys[turn];
      if (stores) cached_key.store(column, four);
#pragma unroll
      for (int row = 0; row < Plan::rows; ++row) {
        const float4 query = queries[row * Plan::row_fours + column / 4];
        scores[row] += four.x * query.x + four.y * query.y + four.z * query.z + four.w * query.w;
      }
    }
    if (stores && lane < Plan::lanes) {
      cached_value.store(lane * 8, values[0]);
      cached_value.store(lane * 8 + 4, values[1]);
    }
    if (stores && lane == 0) {
      cached_key.store_scale(key_scale);
      cached_value.store_scale(value_scale);
    }
#pragma unroll
    for (int row = 0; row < Plan::rows; ++row) {
      own.maximum[row] = sum_of_warp(scores[row]) * key_scale;
      if (lane == 0) own.denominator[row] = Plan::holders;  // each score is counted by so many lanes
      if (lane >= Plan::lanes) continue;
      float(&sums)[8] = own.sums[row];
      sums[0] = values[0].x * value_scale;
      sums[1] = values[0].y * value_scale;
      sums[2] = values[0].z * value_scale;
      sums[3] = values[0].w * value_scale;
      sums[4] = values[1].x * value_scale;
      sums[5] = values[1].y * value_scale;
      sums[6] = values[1].z * value_scale;
      sums[7] = values[1].w * value_scale;
    }
  }
};

// A tile on its way to shared memory. What a lane copies it alone reads.
template <class Plan>
struct StagedTile {
  typename Plan::Words* slots;  // [2, loads, warp] from this lane's first on
  float* scales;                // [2, warp], likewise
  bool here;

  __device__ void begin(const PagedAttentionRun& run, const TableTile& tile, int group) {
    const int lane = static_cast<int>(threadIdx.x) % warp, slot = lane / Plan::lanes, column = lane % Plan::lanes * 8;
    const auto* keys = row_of_page<Plan>(tile.keys, tile.first + slot, run.key_stride, group) + column;
    const auto* values = row_of_page<Plan>(tile.values, tile.first + slot, run.value_stride, group) + column;
#pragma unroll
    for (int i = 0; i < Plan::loads; ++i) {
      const bool there = slot + i * Plan::slots < tile.rows();
      Plan::Cached::copy(shared_address(slots + i * warp), keys + i * Plan::slots * run.key_stride, there);
      Plan::Cached::copy(shared_address(slots + (Plan::loads + i) * warp), values + i * Plan::slots * run.value_stride,
                         there);
    }
    if constexpr (Plan::Cached::scaled) {
      const int own = Plan::own_row(), row = tile.first + own, groups = static_cast<int>(run.groups);
      const bool there = own < tile.rows();
      copy_4_bytes(shared_address(scales), scale_of_row<Plan>(tile.keys, row, run.key_stride, groups, group), there);
      copy_4_bytes(shared_address(scales + warp), scale_of_row<Plan>(tile.values, row, run.value_stride, groups, group),
                   there);
    }
    end_of_copies();
    here = true;
  }
  // which: 0 of the keys, 1 of the values.
  __device__ void take(TileRows<Plan>& to, int which) const {
    wait_for_copies<0>();
#pragma unroll
    for (int i = 0; i < Plan::loads; ++i) to.words[i] = slots[(which * Plan::loads + i) * warp];
    if constexpr (Plan::Cached::scaled) to.scale = scales[which * warp];
  }
};

template <class Plan>
__global__ void __launch_bounds__(Plan::threads, Plan::resident)
    attend_token(const TokenAttentionRun run, const HeadCut cut, int tiles_per_page) {
  using Token = TokenPlan<Plan>;
  extern __shared__ uint4 stages[];
  __shared__ ClusterMemory<Plan> memory;
  let_successor_begin();
  const int lane = static_cast<int>(threadIdx.x) % warp, warp_of_block = static_cast<int>(threadIdx.x) / warp;
  const uint32_t rank = rank_in_cluster(), blocks = blocks_in_cluster();
  const ClusterUnit unit = token_unit(run, cut, blockIdx.x / blocks, tiles_per_page);
  if (threadIdx.x == 0) memory.unit = unit;  // kept there: the tiles need all registers
  const int step = static_cast<int>(blocks) * Plan::warps;
  int index = static_cast<int>(rank) * Plan::warps + warp_of_block;
  const bool has_newest = index == step - 1 && unit.tiles > 0;
  auto& queries = memory.warp_sums[warp_of_block];  // until they are all used
  TileRows<Plan> keys, values;
  const auto ask_for_keys = [&](const TableTile& tile) {
    ask_for_rows<Plan>(keys, tile.keys, tile, run.pages.key_stride, static_cast<int>(run.pages.groups), unit.group);
  };
  const auto ask_for_values = [&](const TableTile& tile) {
    ask_for_rows<Plan>(values, tile.values, tile, run.pages.value_stride, static_cast<int>(run.pages.groups),
                       unit.group);
  };
  const TableTile first = table_tile<Plan, true>(run.pages, unit, index);
  TableTile next = table_tile<Plan, true>(run.pages, unit, index + step);
  ask_for_keys(first);
  ask_for_values(first);
  StagedTile<Plan> staged{
      reinterpret_cast<typename Plan::Words*>(stages) + warp_of_block * Token::staged_words + lane,
      reinterpret_cast<float*>(reinterpret_cast<char*>(stages) + Token::word_bytes) + warp_of_block * 2 * warp + lane};
  staged.begin(run.pages, next, unit.group);
  FourAngles angles[Token::head_turns];
#pragma unroll
  for (int turn = 0; turn < Token::head_turns; ++turn)
    angles[turn] = angles_of(run.tokens, unit.sequence, Token::column(turn));
  const int64_t slot = run.tokens.slots[unit.sequence];
  wait_for_predecessor();
  WarpSums<Plan> own;
#pragma unroll
  for (int row = 0; row < Plan::rows; ++row) own.maximum[row] = -INFINITY;
  TokenQueries<Plan> token;
  token.ask(run, unit);
  if (has_newest) {
    NewestRow<Plan> newest;
    newest.ask(run, unit);
    token.put(run, angles, queries);
    newest.put(run, unit, slot, angles, queries, unit.first_query % cut.heads == 0, own);
  } else {
    token.put(run, angles, queries);
  }
  int rows = first.rows();
#pragma unroll 1
  for (; index < unit.tiles; index += step) {
    float shares[Plan::rows][Plan::loads], weights[Plan::rows];
    multiply_keys<Plan>(queries, keys, shares);
    const float key_scale = keys.scale;
    if (staged.here) {
      staged.take(keys, 0);
    } else {
      ask_for_keys(next);
    }
    soften_tile<Plan>(shares, rows, key_scale, values.scale, own, weights);
    add_values<Plan>(weights, values, own);
    if (staged.here) {
      staged.take(values, 1);
      staged.here = false;
    } else {
      ask_for_values(next);
    }
    rows = next.rows();
    next = table_tile<Plan, true>(run.pages, unit, index + 2 * step);
  }
  meet_in_cluster<Plan>(memory, own, [&](int row, int four, float share, const float(&sum)[4], const MergedState&) {
    store_merged(run.pages, int64_t{memory.unit.first_query + row} * Plan::width + four * 4, share, sum);
  });
  wait_for_cluster();  // no block leaves while its memory is read
}

}  // namespace cepe::ops::cuda
