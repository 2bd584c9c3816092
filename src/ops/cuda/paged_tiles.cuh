// Shapes of the paged attention kernels, the parts that their thread blocks take, and how tiles of cached rows come
// into shared memory.
#pragma once

#include <cuda_bf16.h>

#include "ops/cuda/elements.cuh"
#include "ops/cuda/page_walk.cuh"
#include "ops/cuda/tensor_core.cuh"

namespace cepe::ops::cuda {

// width = warps * columns; rows: query rows of a unit; same: keys serve as values; overlapped: see walk_overlapped;
// together: cached rows, sixteen at a time, whose scores a warp sums up at once; resident: blocks of a multiprocessor
// for which registers are allotted.
template <int width_, int columns_, int rows_, int tile_, int stages_, bool same_, bool overlapped_, int together_ = 1,
          int resident_ = 1>
struct PagedPlan {
  static constexpr int width = width_, columns = columns_, rows = rows_, tile = tile_, stages = stages_;
  static constexpr bool same = same_, overlapped = overlapped_;
  static constexpr int together = together_, resident = resident_;
  static constexpr int warps = width / columns, threads = warps * warp;
  static constexpr int row_tiles = rows / 16, steps = columns / 16, column_tiles = columns / 8, tile_columns = tile / 8;
  static constexpr int pieces = width / 8, row_bytes = (width + 63) / 64 * 128;
  static constexpr int tile_bytes = tile * row_bytes, stage_bytes = tile_bytes * (same ? 1 : 2);
  static constexpr int scores = rows * tile / 4;  // float4 of a warp's share of the scores
  static constexpr int turns = (scores + threads - 1) / threads;
  static constexpr int probability_stride = tile + 8;  // again eight rows in different banks
  static constexpr int sets = overlapped ? 2 : 1;      // of shares, probabilities and factors
  static constexpr int share_at = stages * stage_bytes, probability_at = share_at + sets * warps * scores * 16,
                       probability_bytes = rows * probability_stride * 2,
                       factor_at = probability_at + sets * probability_bytes, barrier_at = factor_at + sets * rows * 4,
                       shared_bytes = barrier_at + stages * 8;
  static_assert(width == warps * columns && columns % 16 == 0 && rows % 16 == 0 && tile % 16 == 0);
  static_assert(tile <= 64 && stages >= (overlapped ? 4 : 2) && shared_bytes <= 232448);
};

// Where a row's 16-byte piece stands: permuted among eight by the row's number, so that the same pieces of eight rows
// lie in different banks.
__device__ constexpr int place_of(int row, int piece) { return piece ^ (row & 7); }

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

// Rows beyond `rows` become zeros: a probability of zero times what stood there before might be no number.
template <class Plan>
__device__ void copy_rows(uint32_t to, const Bfloat16* from, int64_t stride, int rows) {
  const auto copy = [&](int row, int piece) {
    const bool there = row < rows;
    copy_16_bytes(to + row * Plan::row_bytes + place_of(row, piece) * 16,
                  there ? from + row * stride + piece * 8 : from, there);
  };
  const int thread = static_cast<int>(threadIdx.x);
  if constexpr (Plan::threads % Plan::pieces == 0) {
    constexpr int step = Plan::threads / Plan::pieces;
    const int first = thread / Plan::pieces, piece = thread % Plan::pieces;
#pragma unroll
    for (int row = 0; row < Plan::tile; row += step) copy(first + row, piece);
  } else {
#pragma unroll 4
    for (int i = thread; i < Plan::tile * Plan::pieces; i += Plan::threads) copy(i / Plan::pieces, i % Plan::pieces);
  }
}

// What the walks over a part's tiles share.
template <class Plan>
struct Desk {
  unsigned char* memory;
  __device__ uint32_t stage(int index) const { return shared_address(memory) + index * Plan::stage_bytes; }
  __device__ float4* shares(int set) const {
    return reinterpret_cast<float4*>(memory + Plan::share_at) + set * Plan::warps * Plan::scores;
  }
  __device__ float4* own_share(int set) const {
    return shares(set) + static_cast<int>(threadIdx.x) / warp * Plan::scores;
  }
  __device__ Bfloat16* probabilities(int set) const {
    return reinterpret_cast<Bfloat16*>(memory + Plan::probability_at + set * Plan::probability_bytes);
  }
  __device__ float* factors(int set) const {
    return reinterpret_cast<float*>(memory + Plan::factor_at) + set * Plan::rows;
  }
};
template <class Plan>
__device__ int stage_after(int stage, int tiles = 1) {
  return stage + tiles >= Plan::stages ? stage + tiles - Plan::stages : stage + tiles;
}

template <class Plan>
__device__ void copy_tile(const PagedAttentionRun& run, const Desk<Plan>& desk, int stage, const Tile& tile) {
  copy_rows<Plan>(desk.stage(stage), tile.keys, run.key_stride, tile.rows);
  if constexpr (!Plan::same) {
    copy_rows<Plan>(desk.stage(stage) + Plan::tile_bytes, tile.values, run.value_stride, tile.rows);
  }
}

}  // namespace cepe::ops::cuda
