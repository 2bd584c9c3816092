// Shapes and shared memory of the latent kernel over states of 8 bits, and the warp that brings tiles there.
#pragma once

#include "ops/cuda/latent_tiles.cuh"

namespace cepe::ops::cuda {

template <int width_, int score_registers_, int value_registers_, int copy_registers_>
struct Int8Plan {
  static constexpr int width = width_, rows = 32, tile = 64, half = 32;  // half: rows of a tile that come together
  static constexpr int blocks = width / box_columns, group_blocks = (blocks + 1) / 2;
  static constexpr int score_registers = score_registers_, value_registers = value_registers_;
  static constexpr int copy_registers = copy_registers_, threads = 4 * group_warps * warp;
  static constexpr int box_bytes = box_rows * width, half_bytes = half * width, tile_bytes = tile * width;
  // Bytes of a row that stand together in shared memory, permuted for the banks, as the tensor cores read them.
  static constexpr int atom = width % 128 == 0 ? 128 : 64, atoms = width / atom;
  static constexpr int block_bytes = box_rows * box_columns;  // of 64 columns within a box
  static constexpr int query_bytes = rows * width * 2, probability_bytes = rows * tile * 2, buffers = 2;
  static constexpr int scale_bytes = tile * 4, board_bytes = 2048;
  static constexpr int other_bytes = query_bytes + buffers * probability_bytes + board_bytes;
  static constexpr int stages = (232448 - other_bytes) / (tile_bytes + scale_bytes);  // of whole tiles
  static constexpr int query_at = 0, probability_at = query_at + query_bytes,
                       tile_at = probability_at + buffers * probability_bytes, scale_at = tile_at + stages * tile_bytes,
                       board_at = scale_at + stages * scale_bytes, shared_bytes = board_at + board_bytes;
  static_assert(blocks * box_columns == width && (atom == 64 || group_blocks % 2 == 0) && stages >= 2 &&
                shared_bytes <= 232448);
  static constexpr int launch_registers = 65536 / threads;  // of a thread, until they are shared out anew
  static_assert(score_registers + 2 * value_registers + copy_registers <= launch_registers * 4);
};

// What the warps of a block tell one another: "full" ends when a thing is there, "free" when its readers are done.
template <class Plan>
struct Int8Board {
  float query_scales[Plan::rows];
  float factors[Plan::buffers][Plan::rows];               // of what was summed before
  float exchange[group_warps][Plan::rows];                // of the warps that take scores
  Part parts[2];                                          // no query rows: the last one
  int rows[Plan::stages];                                 // of each tile; 0: the part's end
  uint64_t full[Plan::stages][2], free[Plan::stages][2];  // by halves
  uint64_t part_full[2], part_free[2];
  uint64_t probabilities_full[Plan::buffers], probabilities_free[Plan::buffers];
};

template <class Plan>
struct Int8Memory {
  unsigned char* memory;
  uint32_t base;  // its address as shared memory
  __device__ Int8Board<Plan>& board() const {
    static_assert(sizeof(Int8Board<Plan>) <= Plan::board_bytes);
    return *reinterpret_cast<Int8Board<Plan>*>(memory + Plan::board_at);
  }
  __device__ uint32_t of_board(size_t first, uint32_t index) const {
    return base + Plan::board_at + static_cast<uint32_t>(first) + index * 8;
  }
  __device__ uint32_t full(uint32_t stage, int half) const {
    return of_board(offsetof(Int8Board<Plan>, full), stage * 2 + half);
  }
  __device__ uint32_t free(uint32_t stage, int half) const {
    return of_board(offsetof(Int8Board<Plan>, free), stage * 2 + half);
  }
  __device__ uint32_t part_full(uint32_t index) const { return of_board(offsetof(Int8Board<Plan>, part_full), index); }
  __device__ uint32_t part_free(uint32_t index) const { return of_board(offsetof(Int8Board<Plan>, part_free), index); }
  __device__ uint32_t probabilities_full(uint32_t index) const {
    return of_board(offsetof(Int8Board<Plan>, probabilities_full), index);
  }
  __device__ uint32_t probabilities_free(uint32_t index) const {
    return of_board(offsetof(Int8Board<Plan>, probabilities_free), index);
  }
  __device__ uint32_t tile(uint32_t stage) const { return base + Plan::tile_at + stage * Plan::tile_bytes; }
  __device__ uint32_t scales(uint32_t stage) const { return base + Plan::scale_at + stage * Plan::scale_bytes; }
  __device__ uint32_t queries() const { return base + Plan::query_at; }
  __device__ uint32_t probabilities(uint32_t buffer) const {
    return base + Plan::probability_at + buffer * Plan::probability_bytes;
  }
};

// One thread.
template <class Plan>
__device__ void make_int8_barriers(const Int8Memory<Plan>& memory) {
  for (int i = 0; i < Plan::stages; ++i) {
    for (int half = 0; half < 2; ++half) {
      make_barrier(memory.full(i, half), 1);
      make_barrier(memory.free(i, half), 3 * group_warps);
    }
  }
  for (int i = 0; i < 2; ++i) {
    make_barrier(memory.part_full(i), 1);
    make_barrier(memory.part_free(i), 3 * group_warps);
    make_barrier(memory.probabilities_full(i), group_warps);
    make_barrier(memory.probabilities_free(i), 2 * group_warps);
  }
  show_barriers();
}

// Half a tile and its rows' scales, which stand behind the page's rows: what the engine copies are multiples of 16
// bytes, and nothing behind a page is read, so the last up to three go by hand.
template <class Plan>
__device__ void bring_half(const Int8Memory<Plan>& memory, const void* map, uint32_t stage, int half, int64_t rows_at,
                           int64_t scales_at, int rows) {
  const int lane = static_cast<int>(threadIdx.x) % warp;
  const uint32_t full = memory.full(stage, half), scales = memory.scales(stage) + half * Plan::half * 4;
  const uint32_t to = memory.tile(stage) + half * Plan::half_bytes;
  if (rows == Plan::half) {
    if (is_elected()) {
      arrive_and_expect(full, Plan::half_bytes + Plan::half * 4);
      copy_whole_rows<Plan, Plan::half / box_rows>(to, map, rows_at, Plan::width, 0, full);
      copy_bytes(scales, reinterpret_cast<const void*>(scales_at), Plan::half * 4, full);
    }
    __syncwarp();
    return;
  }
  const int fours = rows / 4;
  if (lane < rows % 4) {
    const float scale = reinterpret_cast<const float*>(scales_at)[fours * 4 + lane];
    asm volatile("st.shared.f32 [%0], %1;" ::"r"(scales + (fours * 4 + lane) * 4), "f"(scale) : "memory");
  }
  __syncwarp();
  if (lane == 0) {
    if (rows > 0) {
      arrive_and_expect(full, Plan::half_bytes + fours * 16);
    } else {
      arrive(full);
    }
  }
  __syncwarp();
  if (rows == 0) return;
  if (lane < Plan::half / box_rows) {
    copy_rows_there<Plan>(to + lane * Plan::box_bytes, map, rows_at, Plan::width, lane * box_rows, rows, 0, full);
  } else if (lane == Plan::half / box_rows && fours > 0) {
    copy_bytes(scales, reinterpret_cast<const void*>(scales_at), fours * 16, full);
  }
}

// One warp: all parts of this block, tile by tile, as bring_parts of latent_tiles.cuh.
template <class Plan>
__device__ void bring_int8_parts(const PagedAttentionRun& run, const Cut& cut, const void* map,
                                 const Int8Memory<Plan>& memory) {
  const int lane = static_cast<int>(threadIdx.x) % warp;
  Int8Board<Plan>& board = memory.board();
  auto [begin, end] = share_of(run, cut, blockIdx.x, gridDim.x);
  wait_for_cluster();  // the barriers are made
  Turn<Plan::stages> tile;
  Turn<2> turn;
  const auto bring_tile = [&](const StatesTile<Plan::tile>& next) {
    const int rows = next.rows();
    for (int half = 0; half < 2; ++half) {
      const int first = next.first + half * Plan::half;
      wait_for(memory.free(tile.stage, half), tile.parity ^ 1);
      if (half == 0 && lane == 0) board.rows[tile.stage] = rows;
      bring_half(memory, map, tile.stage, half, next.page + int64_t{first} * Plan::width,
                 next.page + (int64_t{next.page_rows} * Plan::width + first * 4),
                 max(0, min(Plan::half, rows - half * Plan::half)));
    }
    tile.next();
  };
  while (begin < end) {
    const Part part = part_at(run, cut, blockIdx.x, begin, end);
    tell_part(memory, turn, part);
    for (int index = 0; index < part.tiles; ++index) {
      const auto next = states_tile<Plan::tile>(run, cut, part, index);
      if (next.rows() > 0) bring_tile(next);
    }
    bring_tile({});
    begin += part.tiles;
  }
  tell_part(memory, turn, {});
}

}  // namespace cepe::ops::cuda
