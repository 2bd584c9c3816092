// Attention over pages, one part of a unit at a time (page_walk.cuh), for any GPU since sm_80.
// Each warp owns `columns` of the width, for the scores and for the sums: its slice of the queries and of the sums
// stays in registers, and it reads its slice of a tile of cached rows from shared memory twice, once as it is and once
// transposed, so that a latent tile is loaded from memory once. The warps' shares of the scores are added up through
// shared memory by threads that own query rows for the whole part, and come back as bfloat16 probabilities.
#pragma once

#include "ops/cuda/approximate.cuh"
#include "ops/cuda/in_line.cuh"
#include "ops/cuda/paged_tiles.cuh"

namespace cepe::ops::cuda {

// Two neighbouring elements as bfloat16; zeros beyond the part's rows.
template <class Plan>
__device__ uint32_t query_pair(const PagedAttentionRun& run, const Part& part, int row, int column) {
  if (row >= part.query_rows) return 0;
  const int64_t at = ((part.first_query + row) * run.groups + part.group) * Plan::width + column;
  if (run.bfloat16_queries) return *reinterpret_cast<const uint32_t*>(static_cast<const Bfloat16*>(run.queries) + at);
  const float2 wide = *reinterpret_cast<const float2*>(static_cast<const float*>(run.queries) + at);
  return packed_pair(wide.x, wide.y);
}

// The warp's share of the scores, by its columns, of a tile: [rows, tile], left in the order of the registers.
template <class Plan>
__device__ void share_of_scores(const uint32_t (&queries)[Plan::row_tiles][Plan::steps][4], uint32_t keys,
                                float4* share) {
  const int lane = static_cast<int>(threadIdx.x) % warp, own = static_cast<int>(threadIdx.x) / warp;
  const int first_piece = own * (Plan::columns / 8) + ((lane >> 3) & 1);
  const uint32_t row = keys + ((lane & 7) + ((lane >> 4) & 1) * 8) * Plan::row_bytes;
#pragma unroll
  for (int first = 0; first < Plan::tile_columns / 2; first += Plan::together) {
    float sums[Plan::row_tiles][Plan::together * 2][4] = {};
#pragma unroll
    for (int step = 0; step < Plan::steps; ++step) {
#pragma unroll
      for (int pair = 0; pair < Plan::together; ++pair) {
        uint32_t b[4];
        load_matrices(b, row + (first + pair) * 16 * Plan::row_bytes + place_of(lane, first_piece + step * 2) * 16);
#pragma unroll
        for (int m = 0; m < Plan::row_tiles; ++m) {
          multiply(sums[m][pair * 2], queries[m][step], b[0], b[1]);
          multiply(sums[m][pair * 2 + 1], queries[m][step], b[2], b[3]);
        }
      }
    }
#pragma unroll
    for (int m = 0; m < Plan::row_tiles; ++m) {
#pragma unroll
      for (int n = 0; n < Plan::together * 2; ++n) {
        const float* from = sums[m][n];
        share[(m * Plan::tile_columns + first * 2 + n) * warp + (lane ^ ((n & 1) << 2))] =
            make_float4(from[0], from[1], from[2], from[3]);
      }
    }
  }
}

// What a thread keeps of its query rows (two, half a block apart, for each turn): in base 2, the scale included.
template <class Plan>
struct Softmax {
  float maximum[Plan::turns][2], denominator[Plan::turns][2];
};

// A running maximum is raised only where it would be passed by this much: exp2 of it is no harm in bfloat16, and the
// sums are seldom scaled.
inline constexpr float slack = 8;

// One row's two scores of a thread -> probabilities; gives the factor of what was summed before.
template <int lanes>
__device__ float update(float& maximum, float& denominator, float& first, float& second) {
  float highest = fmaxf(first, second);
#pragma unroll
  for (int other = lanes / 2; other > 0; other /= 2) {
    highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, other));
  }
  float factor = 1;
  if (highest > maximum + slack) {
    factor = power_of_two(maximum - highest);
    maximum = highest;
  }
  const float base = maximum == -INFINITY ? 0.0f : maximum;
  first = power_of_two(first - base);
  second = power_of_two(second - base);
  denominator = denominator * factor + (rounded<Bfloat16>(first) + rounded<Bfloat16>(second));
  return factor;
}

// Adds up the shares, and turns the scores into probabilities and factors in shared memory.
template <class Plan>
__device__ void soften(const float4* shares, int rows, float scale, Softmax<Plan>& state, Bfloat16* probabilities,
                       float* factors) {
  constexpr int lanes = Plan::tile / 2;  // that share a query row, and the one eight below
#pragma unroll
  for (int turn = 0; turn < Plan::turns; ++turn) {
    const int place = static_cast<int>(threadIdx.x) + turn * Plan::threads;
    if (place >= Plan::scores) break;  // whole warps
    const int within = place % lanes, unit = place / lanes, n = within / 4, quarter = within % 4;
    const int slot = (unit / 8 * Plan::tile_columns + n) * warp + ((unit % 8 * 4 + quarter) ^ ((n & 1) << 2));
    float4 sum = shares[slot];
#pragma unroll
    for (int other = 1; other < Plan::warps; ++other) {
      const float4 more = shares[other * Plan::scores + slot];
      sum = make_float4(sum.x + more.x, sum.y + more.y, sum.z + more.z, sum.w + more.w);
    }
    const int column = n * 8 + quarter * 2, row = unit / 8 * 16 + unit % 8;
    const bool first = column < rows, second = column + 1 < rows;
    float upper[2] = {first ? sum.x * scale : -INFINITY, second ? sum.y * scale : -INFINITY};
    float lower[2] = {first ? sum.z * scale : -INFINITY, second ? sum.w * scale : -INFINITY};
    const float upper_factor = update<lanes>(state.maximum[turn][0], state.denominator[turn][0], upper[0], upper[1]);
    const float lower_factor = update<lanes>(state.maximum[turn][1], state.denominator[turn][1], lower[0], lower[1]);
    Bfloat16* to = probabilities + row * Plan::probability_stride + column;
    *reinterpret_cast<__nv_bfloat162*>(to) = __floats2bfloat162_rn(upper[0], upper[1]);
    *reinterpret_cast<__nv_bfloat162*>(to + 8 * Plan::probability_stride) = __floats2bfloat162_rn(lower[0], lower[1]);
    if (within == 0) {
      factors[row] = upper_factor;
      factors[row + 8] = lower_factor;
    }
  }
}

// sums [rows, columns of the warp] = factors * sums + probabilities * values.
template <class Plan>
__device__ void add_values(float (&sums)[Plan::row_tiles][Plan::column_tiles][4], uint32_t values,
                           uint32_t probabilities, const float* factors) {
  const int lane = static_cast<int>(threadIdx.x) % warp, own = static_cast<int>(threadIdx.x) / warp;
#pragma unroll
  for (int m = 0; m < Plan::row_tiles; ++m) {
    const float upper = factors[m * 16 + lane / 4], lower = factors[m * 16 + lane / 4 + 8];
    if (!__any_sync(0xffffffffu, upper != 1.0f || lower != 1.0f)) continue;
#pragma unroll
    for (int n = 0; n < Plan::column_tiles; ++n) {
      sums[m][n][0] *= upper;
      sums[m][n][1] *= upper;
      sums[m][n][2] *= lower;
      sums[m][n][3] *= lower;
    }
  }
  const int row = (lane & 7) + ((lane >> 3) & 1) * 8, second = (lane >> 4) & 1;
  const int first_piece = own * (Plan::columns / 8) + second;
#pragma unroll
  for (int step = 0; step < Plan::tile / 16; ++step) {
    uint32_t a[Plan::row_tiles][4];
#pragma unroll
    for (int m = 0; m < Plan::row_tiles; ++m) {
      load_matrices(a[m], probabilities + ((m * 16 + row) * Plan::probability_stride + step * 16 + second * 8) * 2);
    }
#pragma unroll
    for (int pair = 0; pair < Plan::column_tiles / 2; ++pair) {
      uint32_t b[4];
      load_transposed(b, values + (step * 16 + row) * Plan::row_bytes + place_of(lane, first_piece + pair * 2) * 16);
#pragma unroll
      for (int m = 0; m < Plan::row_tiles; ++m) {
        multiply(sums[m][pair * 2], a[m], b[0], b[1]);
        multiply(sums[m][pair * 2 + 1], a[m], b[2], b[3]);
      }
    }
  }
}

// The part's sums [rows, width], not yet divided, and (maximum, denominator) of each row, into the part's slot.
template <class Plan>
__device__ void store_part(const Part& part, const float (&sums)[Plan::row_tiles][Plan::column_tiles][4],
                           const Softmax<Plan>& state, float* all_sums, float2* all_states) {
  constexpr int lanes = Plan::tile / 2;
  const int lane = static_cast<int>(threadIdx.x) % warp, own = static_cast<int>(threadIdx.x) / warp;
  float* to = all_sums + part.slot * Plan::rows * Plan::width + own * Plan::columns + lane % 4 * 2;
#pragma unroll
  for (int m = 0; m < Plan::row_tiles; ++m) {
    const int row = m * 16 + lane / 4;
#pragma unroll
    for (int n = 0; n < Plan::column_tiles; ++n) {
      float* at = to + row * Plan::width + n * 8;
      if (row < part.query_rows) *reinterpret_cast<float2*>(at) = make_float2(sums[m][n][0], sums[m][n][1]);
      if (row + 8 < part.query_rows) {
        *reinterpret_cast<float2*>(at + 8 * Plan::width) = make_float2(sums[m][n][2], sums[m][n][3]);
      }
    }
  }
#pragma unroll
  for (int turn = 0; turn < Plan::turns; ++turn) {
    const int place = static_cast<int>(threadIdx.x) + turn * Plan::threads;
    if (place >= Plan::scores) break;
    const int unit = place / lanes;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float denominator = state.denominator[turn][half];
#pragma unroll
      for (int other = lanes / 2; other > 0; other /= 2) {
        denominator += __shfl_xor_sync(0xffffffffu, denominator, other);
      }
      if (place % lanes != 0) continue;
      all_states[part.slot * Plan::rows + unit / 8 * 16 + unit % 8 + half * 8] =
          make_float2(state.maximum[turn][half], denominator);
    }
  }
}

template <class Plan>
using Queries = uint32_t[Plan::row_tiles][Plan::steps][4];
template <class Plan>
using Sums = float[Plan::row_tiles][Plan::column_tiles][4];

// Tile by tile: scores, probabilities, sums, each by all warps.
template <class Plan>
__device__ void walk_in_step(const PagedAttentionRun& run, const Cut& cut, const Part& part, const Desk<Plan>& desk,
                             const Queries<Plan>& queries, Sums<Plan>& sums, Softmax<Plan>& state, float scale) {
  Tile next = {};  // the table is read one tile ahead of the copy, or the scores, that need it
  if (Plan::stages - 1 < part.tiles) next = tile_of<Plan>(run, cut, part, Plan::stages - 1);
  int next_rows = rows_of<Plan>(run, cut, part, 0);
  int stage = 0;
  for (int index = 0; index < part.tiles; ++index) {
    const int rows = next_rows;
    wait_for_copies<Plan::stages - 2>();
    __syncthreads();  // the tile is there for all; its predecessor, the shares and the probabilities are done with
    if (index + Plan::stages - 1 < part.tiles) {
      copy_tile<Plan>(run, desk, stage_after<Plan>(stage, Plan::stages - 1), next);
      if (index + Plan::stages < part.tiles) next = tile_of<Plan>(run, cut, part, index + Plan::stages);
    }
    end_of_copies();
    if (index + 1 < part.tiles) next_rows = rows_of<Plan>(run, cut, part, index + 1);
    const uint32_t keys = desk.stage(stage);
    share_of_scores<Plan>(queries, keys, desk.own_share(0));
    __syncthreads();
    soften<Plan>(desk.shares(0), rows, scale, state, desk.probabilities(0), desk.factors(0));
    __syncthreads();
    add_values<Plan>(sums, Plan::same ? keys : keys + Plan::tile_bytes, shared_address(desk.probabilities(0)),
                     desk.factors(0));
    stage = stage_after<Plan>(stage);
  }
}

// One barrier a tile: between two of them a warp adds up the values of one tile, softens the next one's scores and
// takes its share of the scores of the one after that, so that warps are in different phases.
template <class Plan>
__device__ void walk_overlapped(const PagedAttentionRun& run, const Cut& cut, const Part& part, const Desk<Plan>& desk,
                                const Queries<Plan>& queries, Sums<Plan>& sums, Softmax<Plan>& state, float scale) {
  Tile next = {};
  if (Plan::stages - 1 < part.tiles) next = tile_of<Plan>(run, cut, part, Plan::stages - 1);
  int stage = 0;  // of the tile whose values are added
  int rows = rows_of<Plan>(run, cut, part, 0);
  wait_for_copies<Plan::stages - 3>();
  __syncthreads();  // tiles 0 and 1 are there for all
  share_of_scores<Plan>(queries, desk.stage(stage), desk.own_share(0));
  __syncthreads();
  for (int index = 0; index < part.tiles; ++index) {
    const int set = index & 1;
    const int rows_after = index + 1 < part.tiles ? rows_of<Plan>(run, cut, part, index + 1) : 0;
    soften<Plan>(desk.shares(set), rows, scale, state, desk.probabilities(set), desk.factors(set));
    if (index + 1 < part.tiles) {
      share_of_scores<Plan>(queries, desk.stage(stage_after<Plan>(stage)), desk.own_share(set ^ 1));
    }
    wait_for_copies<Plan::stages - 4>();
    __syncthreads();  // these probabilities, the next tile's shares and the tile after it are there for all
    if (index + Plan::stages - 1 < part.tiles) {
      copy_tile<Plan>(run, desk, stage_after<Plan>(stage, Plan::stages - 1), next);
      if (index + Plan::stages < part.tiles) next = tile_of<Plan>(run, cut, part, index + Plan::stages);
    }
    end_of_copies();
    const uint32_t keys = desk.stage(stage);
    add_values<Plan>(sums, Plan::same ? keys : keys + Plan::tile_bytes, shared_address(desk.probabilities(set)),
                     desk.factors(set));
    stage = stage_after<Plan>(stage);
    rows = rows_after;
  }
}

template <class Plan>
__device__ void attend_part(const PagedAttentionRun& run, const Cut& cut, const Part& part, const Desk<Plan>& desk,
                            float* all_sums, float2* all_states) {
  const int lane = static_cast<int>(threadIdx.x) % warp, own = static_cast<int>(threadIdx.x) / warp;
#pragma unroll 1
  for (int index = 0; index < Plan::stages - 1; ++index) {
    if (index < part.tiles) {
      copy_tile<Plan>(run, desk, index, tile_of<Plan>(run, cut, part, index));
    }
    end_of_copies();
  }
  Queries<Plan> queries;
#pragma unroll
  for (int m = 0; m < Plan::row_tiles; ++m) {
#pragma unroll
    for (int step = 0; step < Plan::steps; ++step) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        queries[m][step][i] = query_pair<Plan>(run, part, m * 16 + lane / 4 + i % 2 * 8,
                                               own * Plan::columns + step * 16 + lane % 4 * 2 + i / 2 * 8);
      }
    }
  }
  Sums<Plan> sums = {};
  Softmax<Plan> state;
#pragma unroll
  for (int turn = 0; turn < Plan::turns; ++turn) {
    state.maximum[turn][0] = state.maximum[turn][1] = -INFINITY;
    state.denominator[turn][0] = state.denominator[turn][1] = 0;
  }
  const float scale = run.scale * 1.4426950408889634f;  // base 2
  if constexpr (Plan::overlapped) {
    walk_overlapped<Plan>(run, cut, part, desk, queries, sums, state, scale);
  } else {
    walk_in_step<Plan>(run, cut, part, desk, queries, sums, state, scale);
  }
  wait_for_copies<0>();
  store_part<Plan>(part, sums, state, all_sums, all_states);
  __syncthreads();  // before the next part's copies
}

template <class Plan>
__global__ void __launch_bounds__(Plan::threads, Plan::resident)
    attend_pages(const PagedAttentionRun run, const Cut cut, float* all_sums, float2* all_states) {
  extern __shared__ __align__(128) unsigned char memory[];
  const Desk<Plan> desk{memory};
  wait_for_predecessor();
  let_successor_begin();
  auto [begin, end] = share_of(run, cut, blockIdx.x, gridDim.x);
  while (begin < end) {
    const Part part = part_at(run, cut, blockIdx.x, begin, end);
    attend_part<Plan>(run, cut, part, desk, all_sums, all_states);
    begin += part.tiles;
  }
}

}  // namespace cepe::ops::cuda
