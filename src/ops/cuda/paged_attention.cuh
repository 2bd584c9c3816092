// Attention over pages, one part of a unit at a time (page_walk.cuh), for any GPU since sm_80.
// Each warp owns `columns` of the width, for the scores and for the sums: its slice of the queries and of the sums
// stays in registers, and it reads its slice of a tile of cached rows from shared memory twice, once as it is and once
// transposed, so that a latent tile is loaded from memory once. The warps' shares of the scores are added up through
// shared memory by threads that own query rows for the whole part, and come back as bfloat16 probabilities.
#pragma once

#include <cuda_bf16.h>

#include "ops/cuda/elements.cuh"
#include "ops/cuda/page_walk.cuh"
#include "ops/cuda/tensor_core.cuh"

namespace cepe::ops::cuda {

// width = warps * columns; rows: query rows of a unit; same: keys serve as values.
template <int width_, int columns_, int rows_, int tile_, int stages_, bool same_>
struct PagedPlan {
  static constexpr int width = width_, columns = columns_, rows = rows_, tile = tile_, stages = stages_;
  static constexpr bool same = same_;
  static constexpr int warps = width / columns, threads = warps * warp;
  static constexpr int row_tiles = rows / 16, steps = columns / 16, column_tiles = columns / 8, tile_columns = tile / 8;
  // A row's 16-byte pieces are permuted among eight by the row's number, so that eight rows' pieces of one column lie
  // in different banks: the row is padded to a multiple of eight.
  static constexpr int pieces = width / 8, row_bytes = (width + 63) / 64 * 128;
  static constexpr int tile_bytes = tile * row_bytes, stage_bytes = tile_bytes * (same ? 1 : 2);
  static constexpr int scores = rows * tile / 4;  // float4 of a warp's share of the scores
  static constexpr int turns = (scores + threads - 1) / threads;
  static constexpr int probability_stride = tile + 8;  // again eight rows in different banks
  static constexpr int share_at = stages * stage_bytes, probability_at = share_at + warps * scores * 16,
                       factor_at = probability_at + rows * probability_stride * 2, shared_bytes = factor_at + rows * 4;
  static_assert(width == warps * columns && columns % 16 == 0 && rows % 16 == 0 && tile % 16 == 0);
  static_assert(tile <= 64 && shared_bytes <= 232448);
};

// A part: tiles [first_tile, first_tile + tiles) of a unit.
struct Part {
  int first_query, query_rows;  // rows of the packed queries, at most Plan::rows
  int group, first_page, first_tile, tiles;
  int64_t slot;
};

template <class Plan>
__device__ Part part_at(const PagedAttentionRun& run, const Cut& cut, int64_t begin, int64_t end) {
  Amount before;
  const int sequence = sequence_of(run, cut, begin, before);
  const SequenceWork work = work_of(run, cut, sequence);
  const int64_t within = begin - before.tiles;
  const int unit = static_cast<int>(within / work.tiles);
  Part part;
  part.first_tile = static_cast<int>(within - int64_t{unit} * work.tiles);
  part.tiles = static_cast<int>(min(int64_t{work.tiles - part.first_tile}, end - begin));
  part.group = unit / work.blocks;
  const int first = unit % work.blocks * Plan::rows;
  part.first_query = work.first_query + first;
  part.query_rows = min(Plan::rows, work.query_rows - first);
  part.first_page = work.first_page;
  part.slot = int64_t{blockIdx.x} + before.units + unit;
  return part;
}

// Where a tile lies in memory.
struct Tile {
  const Bfloat16 *keys, *values;
  int rows;
};

template <class Plan>
__device__ Tile tile_of(const PagedAttentionRun& run, const Cut& cut, const Part& part, int index) {
  const unsigned tile = static_cast<unsigned>(part.first_tile + index);
  const unsigned within = tile % static_cast<unsigned>(cut.tiles_per_page) * Plan::tile;
  const int64_t page = part.first_page + tile / static_cast<unsigned>(cut.tiles_per_page);
  const auto from = [&](const int64_t* addresses, int64_t stride) {
    return reinterpret_cast<const Bfloat16*>(addresses[page]) + within * stride + part.group * Plan::width;
  };
  const int rows = max(0, min(Plan::tile, run.rows[page] - static_cast<int>(within)));
  return {from(run.keys, run.key_stride), Plan::same ? nullptr : from(run.values, run.value_stride), rows};
}

template <class Plan>
__device__ int rows_of(const PagedAttentionRun& run, const Cut& cut, const Part& part, int index) {
  const unsigned tile = static_cast<unsigned>(part.first_tile + index);
  const unsigned within = tile % static_cast<unsigned>(cut.tiles_per_page) * Plan::tile;
  return run.rows[part.first_page + tile / static_cast<unsigned>(cut.tiles_per_page)] - static_cast<int>(within);
}

template <class Plan>
__device__ void copy_rows(uint32_t to, const Bfloat16* from, int64_t stride, int rows) {
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < Plan::tile * Plan::pieces; i += Plan::threads) {
    const int row = i / Plan::pieces, piece = i % Plan::pieces;
    const bool there = row < rows;
    copy_16_bytes(to + row * Plan::row_bytes + (piece ^ (row & 7)) * 16, there ? from + row * stride + piece * 8 : from,
                  there);
  }
}

template <class Plan>
__device__ void copy_tile(const PagedAttentionRun& run, uint32_t to, const Tile& tile) {
  copy_rows<Plan>(to, tile.keys, run.key_stride, tile.rows);
  if constexpr (!Plan::same) copy_rows<Plan>(to + Plan::tile_bytes, tile.values, run.value_stride, tile.rows);
}

// Two neighbouring elements as bfloat16; zeros beyond the part's rows.
template <class Plan>
__device__ uint32_t query_pair(const PagedAttentionRun& run, const Part& part, int row, int column) {
  if (row >= part.query_rows) return 0;
  const int64_t at = ((part.first_query + row) * run.groups + part.group) * Plan::width + column;
  if (run.bfloat16_queries) return *reinterpret_cast<const uint32_t*>(static_cast<const Bfloat16*>(run.queries) + at);
  const float2 wide = *reinterpret_cast<const float2*>(static_cast<const float*>(run.queries) + at);
  const __nv_bfloat162 pair = __floats2bfloat162_rn(wide.x, wide.y);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// The warp's share of the scores, by its columns, of a tile: [rows, tile], left in the order of the registers.
template <class Plan>
__device__ void share_of_scores(const uint32_t (&queries)[Plan::row_tiles][Plan::steps][4], uint32_t keys,
                                float4* share) {
  const int lane = static_cast<int>(threadIdx.x) % warp, own = static_cast<int>(threadIdx.x) / warp;
  const int first_piece = own * (Plan::columns / 8) + ((lane >> 3) & 1);
  const uint32_t row = keys + ((lane & 7) + ((lane >> 4) & 1) * 8) * Plan::row_bytes;
#pragma unroll
  for (int pair = 0; pair < Plan::tile_columns / 2; ++pair) {
    float sums[Plan::row_tiles][2][4] = {};
#pragma unroll
    for (int step = 0; step < Plan::steps; ++step) {
      uint32_t b[4];
      load_matrices(b, row + pair * 16 * Plan::row_bytes + ((first_piece + step * 2) ^ (lane & 7)) * 16);
#pragma unroll
      for (int m = 0; m < Plan::row_tiles; ++m) {
        multiply(sums[m][0], queries[m][step], b[0], b[1]);
        multiply(sums[m][1], queries[m][step], b[2], b[3]);
      }
    }
#pragma unroll
    for (int m = 0; m < Plan::row_tiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float* from = sums[m][half];
        share[(m * Plan::tile_columns + pair * 2 + half) * warp + (lane ^ (half << 2))] =
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
    factor = exp2f(maximum - highest);
    maximum = highest;
  }
  const float base = maximum == -INFINITY ? 0.0f : maximum;
  first = exp2f(first - base);
  second = exp2f(second - base);
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
      load_transposed(b, values + (step * 16 + row) * Plan::row_bytes + ((first_piece + pair * 2) ^ (lane & 7)) * 16);
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
__device__ void attend_part(const PagedAttentionRun& run, const Cut& cut, const Part& part, unsigned char* memory,
                            float* all_sums, float2* all_states) {
  const int lane = static_cast<int>(threadIdx.x) % warp, own = static_cast<int>(threadIdx.x) / warp;
  const uint32_t base = shared_address(memory);
  auto* shares = reinterpret_cast<float4*>(memory + Plan::share_at);
  auto* probabilities = reinterpret_cast<Bfloat16*>(memory + Plan::probability_at);
  auto* factors = reinterpret_cast<float*>(memory + Plan::factor_at);
  const float scale = run.scale * 1.4426950408889634f;

#pragma unroll
  for (int stage = 0; stage < Plan::stages - 1; ++stage) {
    if (stage < part.tiles) {
      copy_tile<Plan>(run, base + stage * Plan::stage_bytes, tile_of<Plan>(run, cut, part, stage));
    }
    end_of_copies();
  }
  uint32_t queries[Plan::row_tiles][Plan::steps][4];
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
  float sums[Plan::row_tiles][Plan::column_tiles][4] = {};
  Softmax<Plan> state;
#pragma unroll
  for (int turn = 0; turn < Plan::turns; ++turn) {
    state.maximum[turn][0] = state.maximum[turn][1] = -INFINITY;
    state.denominator[turn][0] = state.denominator[turn][1] = 0;
  }

  // The table is read one tile ahead of the copy that needs it.
  Tile next = {};
  if (Plan::stages - 1 < part.tiles) next = tile_of<Plan>(run, cut, part, Plan::stages - 1);
  int stage = 0, free_stage = Plan::stages - 1;
  for (int index = 0; index < part.tiles; ++index) {
    wait_for_copies<Plan::stages - 2>();
    __syncthreads();  // the tile is there for all; its predecessor, the shares and the probabilities are done with
    const int rows = rows_of<Plan>(run, cut, part, index);
    if (index + Plan::stages - 1 < part.tiles) {
      copy_tile<Plan>(run, base + free_stage * Plan::stage_bytes, next);
      if (index + Plan::stages < part.tiles) next = tile_of<Plan>(run, cut, part, index + Plan::stages);
    }
    end_of_copies();
    const uint32_t keys = base + stage * Plan::stage_bytes;
    share_of_scores<Plan>(queries, keys, shares + own * Plan::scores);
    __syncthreads();
    soften<Plan>(shares, rows, scale, state, probabilities, factors);
    __syncthreads();
    add_values<Plan>(sums, Plan::same ? keys : keys + Plan::tile_bytes, base + Plan::probability_at, factors);
    stage = stage + 1 == Plan::stages ? 0 : stage + 1;
    free_stage = free_stage + 1 == Plan::stages ? 0 : free_stage + 1;
  }
  wait_for_copies<0>();
  store_part<Plan>(part, sums, state, all_sums, all_states);
  __syncthreads();  // before the next part's copies
}

template <class Plan>
__global__ void __launch_bounds__(Plan::threads)
    attend_pages(const PagedAttentionRun run, const Cut cut, float* all_sums, float2* all_states) {
  extern __shared__ __align__(128) unsigned char memory[];
  const int64_t total = amount_before(run, cut, static_cast<int>(run.sequences)).tiles;
  int64_t begin = first_tile_of(total, blockIdx.x, gridDim.x);
  const int64_t end = first_tile_of(total, int64_t{blockIdx.x} + 1, gridDim.x);
  while (begin < end) {
    const Part part = part_at<Plan>(run, cut, begin, end);
    attend_part<Plan>(run, cut, part, memory, all_sums, all_states);
    begin += part.tiles;
  }
}

}  // namespace cepe::ops::cuda
