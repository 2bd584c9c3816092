// x weight^T with what follows it done to its sums, in float32 registers, before they are written (Hopper, sm_90a).
// Bound: 2 * rows * inputs * outputs / 989 TFLOP/s of the tensor cores, of which an H200 gives some 780 at its 700 W.
// Design: a cluster of two thread blocks stays and takes tiles of 256 rows x 128 rows of the weight in turn; each block
// has 128 of the rows. Two threads bring blocks of 64 inputs by the copy engine into a ring, the weight's half by half,
// each half sent to both blocks at once. Two warpgroups take whole tiles by turns, 128 x 128 sums in registers: while
// the one does what follows its product, which takes half as long as the product of 1,024 inputs, the other has the
// tensor cores. (Both sharing each tile, 128 x 256, left them idle for 0.3 of the time, whatever the one was ahead: the
// ring holds less than what follows takes.) Results go through shared memory to the copy engine; straight from
// registers, which leaves room for one or two more stages of the ring, gates took 4 % longer and rotations 5. How near:
// 16,384 x 8,192 x 1,024 with the gate alone on a GPU 355 us, 775 TFLOP/s, the tensor cores busy for 0.92 of the
// cycles; among other work, where power is the limit, 375 to 410. A row's sums are added up in the order of the inputs,
// whatever the other rows are.
#pragma once

#include <cuda.h>

#include <cstddef>

#include "ops/cuda/activation.cuh"
#include "ops/cuda/barrier.cuh"
#include "ops/cuda/elements.cuh"
#include "ops/cuda/in_line.cuh"
#include "ops/cuda/warp.cuh"
#include "ops/cuda/warpgroup.cuh"

namespace cepe::ops::cuda {

// The tiles of a run and the clusters' way through them.
struct ProductTiles {
  int row_pairs;    // of 2 * 128 rows
  int columns;      // tiles along the weight's rows
  int blocks;       // of 64 inputs
  int step;         // rows of the weight from one tile to the next
  int second_half;  // rows of the weight from a tile's first 64 to its other 64
  bool rows_first;  // neighbouring tiles share rows of the weight, not of x
};

// pieces_: of 64 columns, of a tile's result. All of it has a place in shared memory: the copy engine gets to it only
// after the blocks that it was asked for before.
template <int pieces_>
struct ProductPlan {
  static constexpr int pieces = pieces_, rows = 128, half = 64, depth = 64, stages = 7 - pieces, groups = 2,
                       group_threads = 4 * warp;
  static constexpr int threads = (groups + 1) * group_threads, launch_registers = 65536 / threads / 8 * 8;
  static constexpr int copy_registers = 40, sum_registers = 232;
  static constexpr int x_bytes = rows * depth * 2, half_bytes = half * depth * 2;
  static constexpr int stage_bytes = x_bytes + 2 * half_bytes;
  static constexpr int piece = 64, piece_bytes = rows * piece * 2;
  static constexpr int piece_at = stages * stage_bytes, barrier_at = piece_at + groups * pieces * piece_bytes;
  static constexpr int shared_bytes = barrier_at + (2 * stages + groups) * 8;
  static_assert(copy_registers + groups * sum_registers <= launch_registers * (groups + 1) && shared_bytes <= 232448);
};

// Barriers: `full` when a stage's blocks have come, `free` when all who read them have, `turn` when the tensor cores
// are a warpgroup's.
template <class Plan>
struct ProductMemory {
  uint32_t base;
  __device__ uint32_t x(uint32_t stage) const { return base + stage * Plan::stage_bytes; }
  __device__ uint32_t weight(uint32_t stage) const { return x(stage) + Plan::x_bytes; }
  __device__ uint32_t piece(int group, int number) const {
    return base + Plan::piece_at + (group * Plan::pieces + number) * Plan::piece_bytes;
  }
  __device__ uint32_t full(uint32_t stage) const { return base + Plan::barrier_at + stage * 16; }
  __device__ uint32_t free(uint32_t stage) const { return full(stage) + 8; }
  __device__ uint32_t turn(int group) const { return full(Plan::stages) + group * 8; }
};

struct ProductTile {
  int row, column;  // of x, the block's first; the tile's
};
// The tile `index` of all.
template <class Plan>
__device__ ProductTile product_tile(const ProductTiles& tiles, int index, uint32_t rank) {
  const int pair = tiles.rows_first ? index % tiles.row_pairs : index / tiles.columns;
  const int column = tiles.rows_first ? index / tiles.row_pairs : index % tiles.columns;
  return {(pair * 2 + static_cast<int>(rank)) * Plan::rows, column};
}

// One thread: a block's rows of x [rows, inputs], as its map has it.
template <class Plan>
__device__ void bring_product_rows(const ProductTiles& tiles, const ProductMemory<Plan>& memory, uint32_t rank,
                                   const CUtensorMap* x) {
  const int clusters = static_cast<int>(gridDim.x) / 2, all = tiles.row_pairs * tiles.columns;
  Turn<Plan::stages> turn;
  for (int index = static_cast<int>(blockIdx.x) / 2; index < all; index += clusters) {
    const int row = product_tile<Plan>(tiles, index, rank).row;
    for (int block = 0; block < tiles.blocks; ++block, turn.next()) {
      wait_for(memory.free(turn.stage), turn.parity ^ 1);
      const uint32_t full = memory.full(turn.stage);
      arrive_and_expect(full, Plan::stage_bytes);
      copy_box(memory.x(turn.stage), x, block * Plan::depth, row, 0, 0, 0, full);
    }
  }
}

// Another: weight(column).half() brings this block's half of a tile's rows of the weight: (block, to, barrier). The one
// is called while the tile before is brought and may ask memory where they are, the other when they are.
template <class Plan, class Weight>
__device__ void bring_product_weight(const ProductTiles& tiles, const ProductMemory<Plan>& memory, uint32_t rank,
                                     const Weight& weight) {
  const int clusters = static_cast<int>(gridDim.x) / 2, all = tiles.row_pairs * tiles.columns;
  int index = static_cast<int>(blockIdx.x) / 2;
  if (index >= all) return;
  const auto rows_of = [&](int tile) { return weight(product_tile<Plan>(tiles, min(tile, all - 1), rank).column); };
  Turn<Plan::stages> turn;
  auto next = rows_of(index);
  for (; index < all; index += clusters) {
    const auto half = next.half();
    next = rows_of(index + clusters);
    for (int block = 0; block < tiles.blocks; ++block, turn.next()) {
      wait_for(memory.free(turn.stage), turn.parity ^ 1);
      half(block, memory.weight(turn.stage) + rank * Plan::half_bytes, memory.full(turn.stage));
    }
  }
}

// Every lane of a warp that is done with a stage calls it: both blocks of the cluster write there.
template <class Memory>
__device__ void release_stage(const Memory& memory, uint32_t stage, uint32_t rank, int lane) {
  if (lane == 0) arrive(memory.free(stage));
  if (lane == 1) arrive_there(place_in(memory.free(stage), rank ^ 1));
}

// [0]: the sums of a tile's first 64 rows, [1]: of its others, laid out as multiply_keys has them.
using ProductSums = float[2][64];

// The product of a tile, whose blocks begin at `turn`; `begun` is called when all of it is asked for.
template <class Plan, class Begun>
__device__ void multiply_blocks(ProductSums& sums, int blocks, const ProductMemory<Plan>& memory, uint32_t rank,
                                Turn<Plan::stages>& turn, const Begun& begun) {
  const int lane = static_cast<int>(threadIdx.x) % warp;
  uint32_t before = 0;
  for (int block = 0; block < blocks; ++block, turn.next()) {
    wait_for(memory.full(turn.stage), turn.parity);
    const uint64_t x = matrix_at(memory.x(turn.stage), 16, 1024),
                   weight = matrix_at(memory.weight(turn.stage), 16, 1024);
    open_products();
#pragma unroll
    for (int step = 0; step < Plan::depth / 16; ++step) {
#pragma unroll
      for (int half = 0; half < 2; ++half)
        multiply_keys(sums[half], x + (half * 64 * 128 + step * 32) / 16, weight + step * 32 / 16,
                      block > 0 || step > 0);
    }
    close_products();
    if (block > 0) {
      wait_for_products<1>();
      release_stage(memory, before, rank, lane);
    }
    before = turn.stage;
  }
  begun();
  wait_for_products<0>();
  release_stage(memory, before, rank, lane);
}

// Two results side by side, as they are written: [j * 2 + below] are those of row lane / 4 + 8 * below of a warp's
// sixteen and columns 8 * j + 2 * (lane % 4) + {0, 1}.
using Pair = __nv_bfloat162;

// A piece [64, 64] of a warpgroup's results, laid out for the copy engine.
__device__ inline void lay_results(uint32_t to, const Pair* results) {
  const int lane = static_cast<int>(threadIdx.x) % warp, own = static_cast<int>(threadIdx.x) / warp % 4;
  const int row = own * 16 + lane % 16;
  const auto bits = [&](int at) { return *reinterpret_cast<const uint32_t*>(results + at); };
#pragma unroll
  for (int j = 0; j < 8; j += 2) {
    const int place = (j + lane / 16) ^ (row & 7);
    store_matrices(to + row * 128 + place * 16, bits(j * 2), bits(j * 2 + 1), bits(j * 2 + 2), bits(j * 2 + 3));
  }
}

// What becomes of a tile: begin(its first column) before its product, then finish(sums, half, row, column, results) for
// its upper and its lower 64 rows; row: the first of the two that this thread has. Two results at a time: single
// numbers are rounded to bfloat16 by the slow unit of the exponential.

// round(activate(gate)) * up, of gate and up as they are after a store: a tile's first 64 rows of the weight are the
// gates' of its 64 columns, the others the ups'.
template <Activation activation>
struct GatedResult {
  using Plan = ProductPlan<1>;
  __device__ void begin(int) {}
  __device__ void finish(float (&sums)[64], int, int, int, Pair (&results)[16]) {
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const float2 gate = __bfloat1622float2(__floats2bfloat162_rn(sums[i * 2], sums[i * 2 + 1]));
      const Pair up = __floats2bfloat162_rn(sums[i * 2 + 32], sums[i * 2 + 33]);
      const Pair active =
          __floats2bfloat162_rn(activated<Bfloat16, activation>(gate.x), activated<Bfloat16, activation>(gate.y));
      results[i] = __hmul2_rn(active, up);
    }
  }
};

// Heads of `width`, of which those before column `rotated` are turned by their row's angles, as rotary.cuh turns them.
template <int width>
struct RotatedResult {
  using Plan = ProductPlan<2>;
  static constexpr int pairs = width / 16;  // eights of columns of half a head
  const float *cos, *sin;                   // [rows, width / 2]
  int rows, rotated;
  __device__ void begin(int) {}
  __device__ void finish(float (&sums)[64], int, int row, int column, Pair (&results)[32]) {
#pragma unroll
    for (int i = 0; i < 32; ++i) results[i] = __floats2bfloat162_rn(sums[i * 2], sums[i * 2 + 1]);
    if (column >= rotated) return;
    Pair cosines[pairs * 2], sines[pairs * 2];
#pragma unroll
    for (int below = 0; below < 2; ++below) {
      const int64_t angles = int64_t{min(row + below * 8, rows - 1)} * (width / 2) + threadIdx.x % 4 * 2;
#pragma unroll
      for (int j = 0; j < pairs; ++j) {
        cosines[j * 2 + below] = __float22bfloat162_rn(__ldg(reinterpret_cast<const float2*>(cos + angles + j * 8)));
        sines[j * 2 + below] = __float22bfloat162_rn(__ldg(reinterpret_cast<const float2*>(sin + angles + j * 8)));
      }
    }
#pragma unroll
    for (int head = 0; head < 128 / width; ++head) {
      if (column + head * width >= rotated) break;
#pragma unroll
      for (int i = 0; i < 2 * pairs; ++i) {
        Pair &first = results[head * 4 * pairs + i], &second = results[head * 4 * pairs + 2 * pairs + i];
        const Pair turned = __hsub2_rn(__hmul2_rn(first, cosines[i]), __hmul2_rn(second, sines[i]));
        second = __hadd2_rn(__hmul2_rn(second, cosines[i]), __hmul2_rn(first, sines[i]));
        first = turned;
      }
    }
  }
};

// A warpgroup of the products: every other tile of the cluster.
template <class Plan, class Result>
__device__ void make_products(const ProductTiles& tiles, const ProductMemory<Plan>& memory, uint32_t rank, int group,
                              const CUtensorMap* y, Result result) {
  const int clusters = static_cast<int>(gridDim.x) / 2, all = tiles.row_pairs * tiles.columns;
  const int thread = static_cast<int>(threadIdx.x) % Plan::group_threads, lane = thread % warp;
  Turn<Plan::stages> turn;
  uint32_t parity = 0;  // of this group's turns
  for (int i = 0, index = static_cast<int>(blockIdx.x) / 2; index < all; ++i, index += clusters) {
    if (i % Plan::groups != group) {
      turn.skip(static_cast<uint32_t>(tiles.blocks));
      continue;
    }
    const ProductTile tile = product_tile<Plan>(tiles, index, rank);
    const int column = tile.column * Plan::pieces * Plan::piece;
    result.begin(column);
    ProductSums sums;
    if (i > 0) {
      wait_for(memory.turn(group), parity);
      parity ^= 1;
    }
    multiply_blocks(sums, tiles.blocks, memory, rank, turn, [&] {
      if (thread == 0) arrive(memory.turn(group ^ 1));
    });
    if (thread == 0) wait_for_stores<0>();  // of the tile before
    wait_for_group(group + 1);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      Pair results[Plan::pieces * 16];
      result.finish(sums[half], half, tile.row + half * 64 + thread / warp * 16 + lane / 4, column, results);
#pragma unroll
      for (int piece = 0; piece < Plan::pieces; ++piece)
        lay_results(memory.piece(group, piece) + half * 64 * 128, results + piece * 16);
    }
    show_to_engines();
    wait_for_group(group + 1);
    if (thread == 0) {
#pragma unroll
      for (int piece = 0; piece < Plan::pieces; ++piece)
        store_box(y, column + piece * Plan::piece, tile.row, memory.piece(group, piece));
      end_of_stores();
    }
  }
  if (thread == 0) wait_for_stores<0>();
}

// Of a cluster whose barriers are made: a thread of each of the last warpgroup's first two warps copies, each of the
// other warpgroups does its own work. (One thread for both took 440 of the 590 cycles of a block's products to ask for
// its copies.)
template <class Plan, class Rows, class Weight, class Work>
__device__ void share_work(const Rows& bring_rows, const Weight& bring_weight, const Work& work) {
  arrive_at_cluster();
  wait_for_cluster();
  wait_for_predecessor();
  let_successor_begin();
  const int role = static_cast<int>(threadIdx.x) / Plan::group_threads;
  if (role == Plan::groups) {
    set_registers<Plan::copy_registers, Plan::launch_registers>();
    const int own = static_cast<int>(threadIdx.x) % Plan::group_threads / warp;
    if (own == 0 && is_elected()) bring_rows();
    if (own == 1 && is_elected()) bring_weight();
  } else {
    set_registers<Plan::sum_registers, Plan::launch_registers>();
    work(role);
  }
  __syncwarp();
  arrive_at_cluster();
  wait_for_cluster();  // the other block may still send to this one's memory and barriers
}

// A thread block's part of it all, from the barriers on. weight(rank) is what bring_product_weight takes.
template <class Result, class Weight>
__device__ void run_products(const ProductTiles& tiles, const CUtensorMap* x, const CUtensorMap* y,
                             const Result& result, const Weight& weight) {
  using Plan = typename Result::Plan;
  extern __shared__ __align__(1024) unsigned char product_memory[];
  const ProductMemory<Plan> memory{shared_address(product_memory)};
  const uint32_t rank = rank_in_cluster();
  if (threadIdx.x == 0) {
    fetch_map(x);
    fetch_map(y);
    for (uint32_t stage = 0; stage < Plan::stages; ++stage) {
      make_barrier(memory.full(stage), 1);
      make_barrier(memory.free(stage), 2 * 4);  // the warps of a group in either block
    }
    for (int group = 0; group < Plan::groups; ++group) make_barrier(memory.turn(group), 1);
    show_barriers();
  }
  share_work<Plan>([&] { bring_product_rows(tiles, memory, rank, x); },
                   [&] { bring_product_weight(tiles, memory, rank, weight(rank)); },
                   [&](int group) { make_products(tiles, memory, rank, group, y, result); });
}

// Rows of the weight from `row` on, to both blocks.
struct WeightHalf {
  const CUtensorMap* weight;
  int row;
  __device__ WeightHalf half() const { return *this; }
  __device__ void operator()(int block, uint32_t to, uint32_t full) const {
    copy_box_to(0b11, to, weight, block * ProductPlan<1>::depth, row, 0, 0, 0, full);
  }
};

// Empty where it is compiled for other GPUs than sm_90a.
template <class Result>
__global__ void __launch_bounds__(Result::Plan::threads, 1)
    product_kernel(const ProductTiles tiles, const __grid_constant__ CUtensorMap x,
                   const __grid_constant__ CUtensorMap weight, const __grid_constant__ CUtensorMap y,
                   const Result result) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  run_products(tiles, &x, &y, result, [&](uint32_t rank) {
    return [&, rank](int column) {
      return WeightHalf{&weight, column * tiles.step + (rank == 0 ? 0 : tiles.second_half)};
    };
  });
#endif
}

}  // namespace cepe::ops::cuda
