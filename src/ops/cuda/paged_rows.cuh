// Attention over pages for many query rows that share them (a batch over one context): a warp owns sixteen query rows
// over the whole width, so that scores and probabilities never leave its registers (Dao, arXiv 2307.08691), where
// paged_attention.cuh has warps own columns, which serves few rows.
// Bound: as paged_attention.cu; with 64 query rows of width 128 the bytes (16 operations a byte and row, 989 TFLOP/s
// over 4.2 TB/s: 235 operations a byte, so up to about 118 rows).
#pragma once

#include "ops/cuda/paged_attention.cuh"

namespace cepe::ops::cuda {

// 64 query rows of a unit, tiles of 64 cached rows. resident: blocks of a multiprocessor for which registers are
// allotted.
template <int width_, int stages_, int resident_>
struct RowsPlan {
  static constexpr int width = width_, stages = stages_, resident = resident_;
  static constexpr int rows = 64, tile = 64, warps = rows / 16, threads = warps * warp;
  static constexpr bool same = false, by_rows = true;
  static constexpr int steps = width / 16, column_tiles = width / 8, key_tiles = tile / 8;
  static constexpr int pieces = width / 8, row_bytes = (width + 63) / 64 * 128;
  static constexpr int tile_bytes = tile * row_bytes, stage_bytes = 2 * tile_bytes;
  static constexpr int shared_bytes = stages * stage_bytes;
  static_assert(width % 16 == 0 && stages >= 2 && shared_bytes * resident <= 232448);
};

// What a lane holds of its two query rows, eight apart.
template <class Plan>
struct RowSums {
  float sums[Plan::column_tiles][4] = {};
  float maximum[2] = {-INFINITY, -INFINITY}, denominator[2] = {};
};

template <class Plan>
__device__ void scores_of(const uint32_t (&queries)[Plan::steps][4], uint32_t keys,
                          float (&scores)[Plan::key_tiles][4]) {
  const int lane = static_cast<int>(threadIdx.x) % warp;
  const uint32_t row = keys + ((lane & 7) + ((lane >> 4) & 1) * 8) * Plan::row_bytes;
#pragma unroll
  for (int step = 0; step < Plan::steps; ++step) {
    const int piece = step * 2 + ((lane >> 3) & 1);
#pragma unroll
    for (int pair = 0; pair < Plan::key_tiles / 2; ++pair) {
      uint32_t b[4];
      load_matrices(b, row + pair * 16 * Plan::row_bytes + place_of(lane, piece) * 16);
      multiply(scores[pair * 2], queries[step], b[0], b[1]);
      multiply(scores[pair * 2 + 1], queries[step], b[2], b[3]);
    }
  }
}

// Scores of one tile -> probabilities in place; what was summed before is scaled where a maximum rises by more than the
// slack.
template <class Plan>
__device__ void soften_rows(float (&scores)[Plan::key_tiles][4], int rows, float scale, RowSums<Plan>& own) {
  const int column = static_cast<int>(threadIdx.x) % 4 * 2;
  float factors[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float highest = -INFINITY;
#pragma unroll
    for (int n = 0; n < Plan::key_tiles; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& score = scores[n][half * 2 + i];
        score = n * 8 + column + i < rows ? score * scale : -INFINITY;
        highest = fmaxf(highest, score);
      }
    }
    highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 1));
    highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 2));
    factors[half] = 1;
    if (highest > own.maximum[half] + slack) {
      factors[half] = power_of_two(own.maximum[half] - highest);
      own.maximum[half] = highest;
    }
    const float base = own.maximum[half] == -INFINITY ? 0.0f : own.maximum[half];
    float sum = 0;
#pragma unroll
    for (int n = 0; n < Plan::key_tiles; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& score = scores[n][half * 2 + i];
        score = rounded<Bfloat16>(power_of_two(score - base));
        sum += score;
      }
    }
    own.denominator[half] = own.denominator[half] * factors[half] + sum;
  }
  if (!__any_sync(0xffffffffu, factors[0] != 1.0f || factors[1] != 1.0f)) return;
#pragma unroll
  for (int n = 0; n < Plan::column_tiles; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) own.sums[n][i] *= factors[i / 2];
  }
}

template <class Plan>
__device__ void add_rows(const float (&probabilities)[Plan::key_tiles][4], uint32_t values, RowSums<Plan>& own) {
  const int lane = static_cast<int>(threadIdx.x) % warp;
  const int row = (lane & 7) + ((lane >> 3) & 1) * 8, second = (lane >> 4) & 1;
#pragma unroll
  for (int step = 0; step < Plan::tile / 16; ++step) {
    const auto &upper = probabilities[step * 2], &lower = probabilities[step * 2 + 1];
    const uint32_t a[4] = {packed_pair(upper[0], upper[1]), packed_pair(upper[2], upper[3]),
                           packed_pair(lower[0], lower[1]), packed_pair(lower[2], lower[3])};
#pragma unroll
    for (int pair = 0; pair < Plan::column_tiles / 2; ++pair) {
      uint32_t b[4];
      load_transposed(b, values + (step * 16 + row) * Plan::row_bytes + place_of(lane, pair * 2 + second) * 16);
      multiply(own.sums[pair * 2], a, b[0], b[1]);
      multiply(own.sums[pair * 2 + 1], a, b[2], b[3]);
    }
  }
}

template <class Plan>
__device__ void store_rows(const Part& part, const RowSums<Plan>& own, float* all_sums, float2* all_states) {
  const int lane = static_cast<int>(threadIdx.x) % warp;
  const int row = static_cast<int>(threadIdx.x) / warp * 16 + lane / 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float denominator = own.denominator[half];
    denominator += __shfl_xor_sync(0xffffffffu, denominator, 1);
    denominator += __shfl_xor_sync(0xffffffffu, denominator, 2);
    const int at = row + half * 8;
    if (at >= part.query_rows) continue;
    const int64_t place = part.slot * Plan::rows + at;
    if (lane % 4 == 0) all_states[place] = make_float2(own.maximum[half], denominator);
    float* to = all_sums + place * Plan::width + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < Plan::column_tiles; ++n) {
      *reinterpret_cast<float2*>(to + n * 8) = make_float2(own.sums[n][half * 2], own.sums[n][half * 2 + 1]);
    }
  }
}

template <class Plan>
__device__ void attend_rows_part(const PagedAttentionRun& run, const Cut& cut, const Part& part, const Desk<Plan>& desk,
                                 float* all_sums, float2* all_states) {
  const int lane = static_cast<int>(threadIdx.x) % warp, own_row = static_cast<int>(threadIdx.x) / warp * 16 + lane / 4;
#pragma unroll 1
  for (int index = 0; index < Plan::stages - 1; ++index) {
    if (index < part.tiles) copy_tile<Plan>(run, desk, index, tile_of<Plan>(run, cut, part, index));
    end_of_copies();
  }
  uint32_t queries[Plan::steps][4];
#pragma unroll
  for (int step = 0; step < Plan::steps; ++step) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      queries[step][i] = query_pair<Plan>(run, part, own_row + i % 2 * 8, step * 16 + lane % 4 * 2 + i / 2 * 8);
    }
  }
  RowSums<Plan> own;
  const float scale = run.scale * 1.4426950408889634f;  // base 2
  int stage = 0;
  for (int index = 0; index < part.tiles; ++index) {
    const int rows = rows_of<Plan>(run, cut, part, index);
    wait_for_copies<Plan::stages - 2>();
    __syncthreads();  // the tile is there for all, and its predecessor done with
    if (index + Plan::stages - 1 < part.tiles) {
      copy_tile<Plan>(run, desk, stage_after<Plan>(stage, Plan::stages - 1),
                      tile_of<Plan>(run, cut, part, index + Plan::stages - 1));
    }
    end_of_copies();
    float scores[Plan::key_tiles][4] = {};
    scores_of<Plan>(queries, desk.stage(stage), scores);
    soften_rows<Plan>(scores, rows, scale, own);
    add_rows<Plan>(scores, desk.stage(stage) + Plan::tile_bytes, own);
    stage = stage_after<Plan>(stage);
  }
  wait_for_copies<0>();
  store_rows<Plan>(part, own, all_sums, all_states);
  __syncthreads();  // before the next part's copies
}

template <class Plan>
__global__ void __launch_bounds__(Plan::threads, Plan::resident)
    attend_by_rows(const PagedAttentionRun run, const Cut cut, float* all_sums, float2* all_states) {
  extern __shared__ __align__(128) unsigned char memory[];
  const Desk<Plan> desk{memory};
  wait_for_predecessor();
  let_successor_begin();
  auto [begin, end] = share_of(run, cut, blockIdx.x, gridDim.x);
  while (begin < end) {
    const Part part = part_at(run, cut, blockIdx.x, begin, end);
    attend_rows_part<Plan>(run, cut, part, desk, all_sums, all_states);
    begin += part.tiles;
  }
}

}  // namespace cepe::ops::cuda
