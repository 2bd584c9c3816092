// Shapes and shared memory of the latent kernel for Hopper, and the warp that brings tiles there.
#pragma once

#include <cuda.h>

#include <cstddef>

#include "ops/cuda/barrier.cuh"
#include "ops/cuda/elements.cuh"
#include "ops/cuda/in_line.cuh"
#include "ops/cuda/page_walk.cuh"

namespace cepe::ops::cuda {

inline constexpr int box_rows = 8;      // copied at once: the rows of an atom of the tensor cores' layout
inline constexpr int box_columns = 64;  // 128 bytes, an atom's other side
inline constexpr int group_warps = 4;   // of a warpgroup

// The columns of a state are shared out to the thread blocks of a cluster, and a thread block's to the two warpgroups
// that add up values: where they are odd, the first has one block of 64 more.
// rows_: query rows of a unit; the tensor cores always take 64, of which the others are whatever lies there.
// held_: columns of the queries that stay in registers (the others lie in shared memory), in blocks of 64; buffers_: of
// probabilities; told_at_once_: of them, instead of when the next tile's scores are done.
template <int width_, int cluster_, int rows_, int held_, int buffers_, bool told_at_once_, int score_registers_,
          int first_registers_, int second_registers_, int copy_registers_>
struct LatentPlan {
  static constexpr int width = width_, cluster = cluster_, rows = rows_, tile = 64;
  static constexpr int blocks = width / box_columns / cluster, columns = blocks * box_columns;
  static constexpr int first_blocks = (blocks + 1) / 2, second_blocks = blocks / 2;  // of each warpgroup of sums
  static constexpr int held = held_, held_steps = held * 4, laid = blocks - held, buffers = buffers_;
  static constexpr bool told_at_once = told_at_once_;
  static constexpr int score_registers = score_registers_, first_registers = first_registers_;
  static constexpr int second_registers = second_registers_;
  static constexpr int copy_registers = copy_registers_, threads = 4 * group_warps * warp;
  static constexpr int readers = 3 * group_warps;  // warps that read a tile
  static constexpr int box_bytes = box_rows * columns * 2, tile_bytes = tile / box_rows * box_bytes;
  static constexpr int halves = cluster > 1 ? 1 : 2;  // of a warp's query rows, whose softmax a block takes
  static constexpr int partner_bytes = cluster > 1 ? rows / 2 * tile * 4 : 0, probability_bytes = rows * tile * 2;
  static constexpr int partner_step = warp * 16;
  static constexpr int query_bytes = rows * laid * box_columns * 2, board_bytes = 1024;
  static constexpr int other_bytes = query_bytes + partner_bytes + buffers * probability_bytes + board_bytes;
  static constexpr int stages = (232448 - other_bytes) / tile_bytes;
  // What lies behind the rows of the first two is read for rows that do not count.
  static constexpr int query_at = 0, probability_at = query_at + query_bytes,
                       partner_at = probability_at + buffers * probability_bytes, tile_at = partner_at + partner_bytes,
                       board_at = tile_at + stages * tile_bytes, shared_bytes = board_at + board_bytes;
  static_assert(blocks * cluster * box_columns == width && cluster <= 2 && stages >= 2);
  // What a thread block is launched with is shared out anew: a warpgroup waits for ever for what is not there.
  static constexpr int launch_registers = 65536 / threads;
  static_assert(score_registers + first_registers + second_registers + copy_registers <= launch_registers * 4);
};

// What the warps of a block tell one another. Barriers: "full" ends when a thing is there, "free" when all its readers
// are done with it.
template <class Plan>
struct Board {
  float factors[Plan::buffers][64];  // of what was summed before
  Part parts[2];                     // no query rows: the last one
  int rows[Plan::stages];            // of each tile; 0: the part's end, there is no tile
  uint64_t tile_full[Plan::stages], tile_free[Plan::stages];
  uint64_t part_full[2], part_free[2];
  uint64_t probabilities_full[Plan::buffers], probabilities_free[Plan::buffers];
  uint64_t partner_full[group_warps], partner_free[group_warps];  // scores from the other block, a warp's and a warp's
};

template <class Plan>
struct LatentMemory {
  unsigned char* memory;
  uint32_t base;  // its address as shared memory: what else is told by addresses is told by distances from it
  __device__ Board<Plan>& board() const {
    static_assert(sizeof(Board<Plan>) <= Plan::board_bytes);
    return *reinterpret_cast<Board<Plan>*>(memory + Plan::board_at);
  }
  __device__ uint32_t tile_full(uint32_t index) const { return barrier(offsetof(Board<Plan>, tile_full), index); }
  __device__ uint32_t tile_free(uint32_t index) const { return barrier(offsetof(Board<Plan>, tile_free), index); }
  __device__ uint32_t part_full(uint32_t index) const { return barrier(offsetof(Board<Plan>, part_full), index); }
  __device__ uint32_t part_free(uint32_t index) const { return barrier(offsetof(Board<Plan>, part_free), index); }
  __device__ uint32_t probabilities_full(uint32_t index) const {
    return barrier(offsetof(Board<Plan>, probabilities_full), index);
  }
  __device__ uint32_t probabilities_free(uint32_t index) const {
    return barrier(offsetof(Board<Plan>, probabilities_free), index);
  }
  __device__ uint32_t partner_full(uint32_t index) const { return barrier(offsetof(Board<Plan>, partner_full), index); }
  __device__ uint32_t partner_free(uint32_t index) const { return barrier(offsetof(Board<Plan>, partner_free), index); }
  __device__ uint32_t factor(uint32_t buffer, int row) const {
    return base + Plan::board_at + static_cast<uint32_t>(offsetof(Board<Plan>, factors)) + (buffer * 64 + row) * 4;
  }
  __device__ uint32_t barrier(size_t first, uint32_t index) const {
    return base + Plan::board_at + static_cast<uint32_t>(first) + index * 8;
  }
  __device__ uint32_t tile(uint32_t stage) const { return base + Plan::tile_at + stage * Plan::tile_bytes; }
  __device__ uint32_t queries() const { return base + Plan::query_at; }
  __device__ uint32_t probabilities(uint32_t buffer) const {
    return base + Plan::probability_at + buffer * Plan::probability_bytes;
  }
  // The first 16 bytes of a lane; the next stand partner_step further.
  __device__ uint32_t partner(int own, int lane) const {
    return base + Plan::partner_at + own * 4 * Plan::partner_step + lane * 16;
  }
};

// One thread.
template <class Plan>
__device__ void make_barriers(const LatentMemory<Plan>& memory) {
  for (int i = 0; i < Plan::stages; ++i) {
    make_barrier(memory.tile_full(i), 1);
    make_barrier(memory.tile_free(i), Plan::readers);
  }
  for (int i = 0; i < 2; ++i) {
    make_barrier(memory.part_full(i), 1);
    make_barrier(memory.part_free(i), Plan::readers);
  }
  for (int i = 0; i < Plan::buffers; ++i) {
    make_barrier(memory.probabilities_full(i), group_warps);
    make_barrier(memory.probabilities_free(i), 2 * group_warps * Plan::cluster);
  }
  for (int i = 0; i < group_warps; ++i) {
    make_barrier(memory.partner_full(i), 1);
    make_barrier(memory.partner_free(i), 1);
  }
  for (auto& factors : memory.board().factors) {
    for (float& factor : factors) factor = 1;
  }
  show_barriers();
}

// The tensor map of latent_map (latent_hopper.cu) reaches any address: its last two coordinates count 16 bytes and 32
// GiB from here.
inline constexpr uint64_t map_base = uint64_t{1} << 20;
inline constexpr int map_bits = 31;

// Eight rows at an address; of a box that begins `before` rows before the map's, as many are zeros.
template <class Plan>
__device__ void copy_rows(uint32_t to, const void* map, int64_t address, int before, uint32_t rank, uint32_t barrier) {
  const uint64_t pieces = (static_cast<uint64_t>(address) - map_base) / 16;
  copy_box(to, map, 0, before, static_cast<int>(rank) * Plan::blocks,
           static_cast<int>(pieces & ((uint64_t{1} << map_bits) - 1)), static_cast<int>(pieces >> map_bits), barrier);
}

// Eight rows of a tile of `rows` (one at least), from the tile's row `first`. Where fewer are there, the box begins so
// many rows before them, outside the map's eight, that those after the page's end lie outside too, where the engine
// reads nothing and writes zeros. Where none is, rows that are there stand in for them: their probabilities are zero.
template <class Plan>
__device__ void copy_rows_there(uint32_t to, const void* map, int64_t tile, int64_t row_bytes, int first, int rows,
                                uint32_t rank, uint32_t barrier) {
  if (first >= rows) first = 0;
  const int before = max(0, box_rows - (rows - first));
  copy_rows<Plan>(to, map, tile + (first - before) * row_bytes, before, rank, barrier);
}

// So many boxes of eight rows that are all there, by one lane.
template <class Plan, int boxes>
__device__ void copy_whole_rows(uint32_t to, const void* map, int64_t address, int64_t row_bytes, uint32_t rank,
                                uint32_t barrier) {
#pragma unroll
  for (int box = 0; box < boxes; ++box)
    copy_rows<Plan>(to + box * Plan::box_bytes, map, address + box * box_rows * row_bytes, 0, rank, barrier);
}

struct TileMaps {
  const void *states, *queries;
};

// A part's queries, in the place of a tile before its first: this block's columns, in blocks of 64 by rows. Rows beyond
// what the tensor has become zeros, those beyond the part are another's.
template <class Plan>
__device__ void bring_queries(const TileMaps& maps, const Part& part, const LatentMemory<Plan>& memory, uint32_t rank,
                              const Turn<Plan::stages>& tile) {
  constexpr int block_bytes = Plan::rows * box_columns * 2;
  static_assert(Plan::blocks * block_bytes <= Plan::tile_bytes);
  wait_for(memory.tile_free(tile.stage), tile.parity ^ 1);
  const uint32_t full = memory.tile_full(tile.stage);
  if (is_elected()) {
    arrive_and_expect(full, Plan::blocks * block_bytes);
#pragma unroll
    for (int block = 0; block < Plan::blocks; ++block)
      copy_box(memory.tile(tile.stage) + block * block_bytes, maps.queries, 0, part.first_query,
               static_cast<int>(rank) * Plan::blocks + block, 0, 0, full);
  }
  __syncwarp();
}

// A part's tile where it lies, of those in the order in which they are read. The first two come from memory: nothing is
// reckoned from them before it is asked for.
template <int tile>
struct StatesTile {
  int64_t page;          // address of its page's first row
  int page_rows, first;  // rows of the page, and which of them is the tile's first
  __device__ int rows() const { return min(tile, page_rows - first); }  // none where a page is short
};

template <int tile>
__device__ StatesTile<tile> states_tile(const PagedAttentionRun& run, const Cut& cut, const Part& part, int index) {
  const auto at = static_cast<unsigned>(part.first_tile + (run.backwards ? part.tiles - 1 - index : index)),
             of_page = static_cast<unsigned>(cut.tiles_per_page);
  const int64_t page = part.first_page + at / of_page;
  return {run.keys[page], run.rows[page], static_cast<int>(at % of_page) * tile};
}

// One warp tells the others of the next part; one without query rows ends it all.
template <class Memory>
__device__ void tell_part(const Memory& memory, Turn<2>& turn, const Part& part) {
  wait_for(memory.part_free(turn.stage), turn.parity ^ 1);
  if (threadIdx.x % warp == 0) {
    memory.board().parts[turn.stage] = part;
    arrive(memory.part_full(turn.stage));
  }
  turn.next();
}

// One warp: all parts of this cluster, tile by tile, this block's columns. Neither the tables nor the states are what
// the kernel before this one writes (ops/paged_attention.h): they are read before it is over, as many tiles as the ring
// holds beside the queries.
template <class Plan>
__device__ void bring_parts(const PagedAttentionRun& run, const Cut& cut, const TileMaps& maps,
                            const LatentMemory<Plan>& memory, uint32_t rank) {
  const int lane = static_cast<int>(threadIdx.x) % warp;
  const int64_t cluster = blockIdx.x / Plan::cluster, row_bytes = run.key_stride * 2;
  Board<Plan>& board = memory.board();
  auto [begin, end] = share_of(run, cut, cluster, gridDim.x / Plan::cluster);
  wait_for_cluster();  // the barriers are made
  Turn<Plan::stages> tile;
  Turn<2> turn;
  // The part's next tile, of those that have rows; false: there is none.
  const auto bring_tile = [&](const Part& part, int& index) {
    StatesTile<Plan::tile> next = {};
    while (next.rows() <= 0) {
      if (index == part.tiles) return false;
      next = states_tile<Plan::tile>(run, cut, part, index++);
    }
    wait_for(memory.tile_free(tile.stage), tile.parity ^ 1);
    const uint32_t full = memory.tile_full(tile.stage);
    if (lane == 0) {
      board.rows[tile.stage] = next.rows();
      arrive_and_expect(full, Plan::tile_bytes);
    }
    __syncwarp();
    const int64_t at = next.page + next.first * row_bytes;
    const uint32_t to = memory.tile(tile.stage);
    if (next.rows() < Plan::tile) {
      if (lane < Plan::tile / box_rows)
        copy_rows_there<Plan>(to + lane * Plan::box_bytes, maps.states, at, row_bytes, lane * box_rows, next.rows(),
                              rank, full);
    } else if (is_elected()) {
      copy_whole_rows<Plan, Plan::tile / box_rows>(to, maps.states, at, row_bytes, rank, full);
    }
    __syncwarp();
    tile.next();
    return true;
  };
  bool has_waited = false;
  while (begin < end) {
    const Part part = part_at(run, cut, cluster, begin, end);
    tell_part(memory, turn, part);
    const Turn<Plan::stages> of_queries = tile;
    tile.next();
    int index = 0;
    if (!has_waited) {
      for (int ahead = 1; ahead < Plan::stages && bring_tile(part, index);) ++ahead;
      wait_for_predecessor();
      has_waited = true;
    }
    bring_queries(maps, part, memory, rank, of_queries);
    while (bring_tile(part, index)) {
    }
    wait_for(memory.tile_free(tile.stage), tile.parity ^ 1);
    if (lane == 0) {
      board.rows[tile.stage] = 0;
      arrive(memory.tile_full(tile.stage));
    }
    tile.next();
    begin += part.tiles;
  }
  tell_part(memory, turn, {});
}

}  // namespace cepe::ops::cuda
