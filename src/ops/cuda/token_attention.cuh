// Self-attention of one decoded token of each sequence (ops/token_attention.h) on Hopper (sm_90): its heads are turned,
// its key and value go into the cache, and all cached rows are attended to, in one launch.
// Bound: the bytes of the cached rows / bandwidth. 32 groups of 2,048 rows of width 128 are 33.5 MB: 8 us at 4.2 TB/s.
// How near: 10.1 to 11.4 us within a layer, from the end of the product before.
// Design: cluster_rows.cuh. What takes time beside the bytes is waiting for the product that makes queries, key and
// value. So the older rows, which do not depend on it, are on their way while it ends: a warp's first tile to
// registers, its second to shared memory. Every warp turns the queries for itself, and the newest row does not go
// through the cache: one warp begins with it, and writes it there.
#pragma once

#include "ops/cuda/cluster_rows.cuh"

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

// Four neighbouring columns of a head, and the four that they are turned with.
struct AskedFour {
  uint2 own, pair;
};

__device__ inline AskedFour ask_for_four(bool there, const Bfloat16* head, int column, int half) {
  return {load_two_where(there, head + column),
          load_two_where(there, head + (column < half ? column + half : column - half))};
}

struct FourAngles {
  float4 cos, sin;
};

// Of columns that are turned; of others anything.
__device__ inline FourAngles angles_of(const RotaryCacheRows& tokens, int sequence, int column) {
  const auto half = static_cast<int>(tokens.half);
  if (column >= 2 * half) return {};
  const int64_t at = int64_t{sequence} * half + (column < half ? column : column - half);
  return {*reinterpret_cast<const float4*>(tokens.cos + at), *reinterpret_cast<const float4*>(tokens.sin + at)};
}

// As rotate_pack (rotary.cuh) rounds.
__device__ inline float turned(float own, float pair, float cos, float sin) {
  return rounded<Bfloat16>(rounded<Bfloat16>(__fmul_rn(own, rounded<Bfloat16>(cos))) +
                           rounded<Bfloat16>(__fmul_rn(pair, rounded<Bfloat16>(sin))));
}

__device__ inline float4 turned(const AskedFour& asked, const FourAngles& angles, int column, int half) {
  const float4 own = make_float4(lower(asked.own.x), upper(asked.own.x), lower(asked.own.y), upper(asked.own.y));
  if (column >= 2 * half) return own;
  const float direction = column < half ? -1.0f : 1.0f;
  return make_float4(turned(own.x, lower(asked.pair.x), angles.cos.x, direction * angles.sin.x),
                     turned(own.y, upper(asked.pair.x), angles.cos.y, direction * angles.sin.y),
                     turned(own.z, lower(asked.pair.y), angles.cos.z, direction * angles.sin.z),
                     turned(own.w, upper(asked.pair.y), angles.cos.w, direction * angles.sin.w));
}

template <class Plan>
struct TokenPlan {
  static constexpr int head_turns = (Plan::row_fours + warp - 1) / warp;  // in which a warp has a head's columns
  static constexpr int staged_fours = Plan::warps * 2 * Plan::loads * warp;
  static constexpr int shared_bytes = staged_fours * 16;
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
    const int64_t at = (slot * tokens.groups + unit.group) * Plan::width;
    float scores[Plan::rows] = {};
#pragma unroll
    for (int turn = 0; turn < turns; ++turn) {
      const int column = TokenPlan<Plan>::column(turn);
      if (turn * warp + lane >= Plan::row_fours) continue;
      const float4 four = turned(key[turn], angles[turn], column, static_cast<int>(tokens.half));
      if (stores) {
        *reinterpret_cast<uint2*>(static_cast<Bfloat16*>(tokens.cache_keys) + at + column) =
            make_uint2(packed_pair(four.x, four.y), packed_pair(four.z, four.w));
      }
#pragma unroll
      for (int row = 0; row < Plan::rows; ++row) {
        const float4 query = queries[row * Plan::row_fours + column / 4];
        scores[row] += four.x * query.x + four.y * query.y + four.z * query.z + four.w * query.w;
      }
    }
    if (stores && lane < Plan::lanes) {
      *reinterpret_cast<uint4*>(static_cast<Bfloat16*>(tokens.cache_values) + at + lane * 8) = value;
    }
#pragma unroll
    for (int row = 0; row < Plan::rows; ++row) {
      own.maximum[row] = sum_of_warp(scores[row]);
      if (lane == 0) own.denominator[row] = Plan::holders;  // each score is counted by so many lanes
      if (lane >= Plan::lanes) continue;
      float(&sums)[8] = own.sums[row];
      sums[0] = lower(value.x);
      sums[1] = upper(value.x);
      sums[2] = lower(value.y);
      sums[3] = upper(value.y);
      sums[4] = lower(value.z);
      sums[5] = upper(value.z);
      sums[6] = lower(value.w);
      sums[7] = upper(value.w);
    }
  }
};

// A tile on its way to shared memory. What a lane copies it alone reads.
template <class Plan>
struct StagedTile {
  uint4* slots;  // [2, loads, warp] from this lane's first on
  bool here;

  __device__ void begin(const PagedAttentionRun& run, const TableTile& tile, int group) {
    const int lane = static_cast<int>(threadIdx.x) % warp, slot = lane / Plan::lanes, column = lane % Plan::lanes * 8;
    const Bfloat16* keys = row_of_page<Plan>(tile.keys, tile.first + slot, run.key_stride, group) + column;
    const Bfloat16* values = row_of_page<Plan>(tile.values, tile.first + slot, run.value_stride, group) + column;
#pragma unroll
    for (int i = 0; i < Plan::loads; ++i) {
      const bool there = slot + i * Plan::slots < tile.rows();
      copy_16_bytes(shared_address(slots + i * warp), keys + i * Plan::slots * run.key_stride, there);
      copy_16_bytes(shared_address(slots + (Plan::loads + i) * warp), values + i * Plan::slots * run.value_stride,
                    there);
    }
    end_of_copies();
    here = true;
  }
  // first: 0 of the keys, Plan::loads of the values.
  __device__ void take(uint4 (&to)[Plan::loads], int first) const {
    wait_for_copies<0>();
#pragma unroll
    for (int i = 0; i < Plan::loads; ++i) to[i] = slots[(first + i) * warp];
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
  uint4 keys[Plan::loads], values[Plan::loads];
  const auto ask_for_keys = [&](const TableTile& tile) {
    ask_for_rows<Plan>(keys, tile.keys, tile, run.pages.key_stride, unit.group);
  };
  const auto ask_for_values = [&](const TableTile& tile) {
    ask_for_rows<Plan>(values, tile.values, tile, run.pages.value_stride, unit.group);
  };
  const TableTile first = table_tile<Plan, true>(run.pages, unit, index);
  TableTile next = table_tile<Plan, true>(run.pages, unit, index + step);
  ask_for_keys(first);
  ask_for_values(first);
  StagedTile<Plan> staged{stages + warp_of_block * 2 * Plan::loads * warp + lane};
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
    float shares[Plan::rows][Plan::loads], probabilities[Plan::rows];
    multiply_keys<Plan>(queries, keys, shares);
    if (staged.here) {
      staged.take(keys, 0);
    } else {
      ask_for_keys(next);
    }
    soften_tile<Plan>(shares, rows, own, probabilities);
    add_values<Plan>(probabilities, values, own);
    if (staged.here) {
      staged.take(values, Plan::loads);
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
