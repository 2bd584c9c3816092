// Attention of many query rows over keys and values that stand in memory, without a mask (Hopper, sm_90a).
// Bound: 4 * query rows * heads * keys * width operations / 989 TFLOP/s of the tensor cores, of which an H200 gives
// some 780 at its 700 W. Design: as arXiv 2407.08608 has it. A cluster of two thread blocks takes 2 * 128 query rows of
// a head over a part of the keys; one warp brings tiles of 128 keys, or values, by the copy engine into a ring, half of
// each tile in either block, each half sent to both. A block's two warpgroups have 64 query rows each, in registers
// with their sums: while the tensor cores take a tile's probabilities times its values, the exponentials of the next
// tile's scores are taken. How near: 4,096 rows of 32 heads of 128 over 16,384 keys 633 to 675 TFLOP/s, over 65,536,
// where power is the limit, 630 to 639; 745 over zeros. Width 64 is held back by the exponentials, 450. Tried: that the
// two warpgroups take turns at the tensor cores (named barriers), nothing; queries in shared memory, 2 % more.
#pragma once

#include <cuda.h>

#include "ops/cuda/approximate.cuh"
#include "ops/cuda/eight_columns.cuh"
#include "ops/cuda/fused_product.cuh"
#include "ops/cuda/hidden_keys.cuh"
#include "ops/cuda/paged_tiles.cuh"

namespace cepe::ops::cuda {

template <int width_>
struct DensePlan {
  static constexpr int width = width_, rows = 128, group_rows = 64, tile = 128, half = 64;
  static constexpr int groups = 2, group_threads = 4 * warp, threads = (groups + 1) * group_threads;
  static constexpr int launch_registers = 65536 / threads / 8 * 8, copy_registers = 40, sum_registers = 232;
  static constexpr int blocks = width / 64;  // of 64 columns, in which rows stand for the tensor cores
  static constexpr int query_bytes = rows * width * 2, tile_bytes = tile * width * 2;
  static constexpr int most_stages = (232448 - 1024 - query_bytes) / tile_bytes;
  static constexpr int stages = most_stages < 8 ? most_stages : 8;
  static constexpr int tile_at = query_bytes, barrier_at = tile_at + stages * tile_bytes,
                       shared_bytes = barrier_at + (2 * stages + 1) * 8;
  static_assert(copy_registers + groups * sum_registers <= launch_registers * (groups + 1) && width % 64 == 0);
};

// Barriers: `full` when a tile, or the queries, have come, `free` when both blocks' warpgroups are done with a tile.
template <class Plan>
struct DenseMemory {
  uint32_t base;
  __device__ uint32_t queries() const { return base; }
  __device__ uint32_t tile(uint32_t stage) const { return base + Plan::tile_at + stage * Plan::tile_bytes; }
  __device__ uint32_t full(uint32_t stage) const { return base + Plan::barrier_at + stage * 16; }
  __device__ uint32_t free(uint32_t stage) const { return full(stage) + 8; }
  __device__ uint32_t queries_full() const { return base + Plan::barrier_at + Plan::stages * 16; }
};

// What a thread block has to do: query rows from `row` on of a head, over some tiles of its group's keys. Clusters that
// are there at one time read the same keys.
struct DenseUnit {
  int row, head, group, part, first_tile, tiles;
};
template <class Plan>
__device__ DenseUnit dense_unit(const DenseAttentionRun& run, uint32_t rank) {
  const int index = static_cast<int>(blockIdx.x) / 2, heads = static_cast<int>(run.heads);
  const int row_pairs = static_cast<int>((run.query_rows + 2 * Plan::rows - 1) / (2 * Plan::rows));
  const int tiles = static_cast<int>((run.key_rows + Plan::tile - 1) / Plan::tile), parts = static_cast<int>(run.parts);
  DenseUnit unit;
  unit.row = (index % row_pairs * 2 + static_cast<int>(rank)) * Plan::rows;
  unit.head = index / row_pairs % heads;
  unit.group = unit.head / (heads / static_cast<int>(run.groups));
  unit.part = index / row_pairs / heads;
  unit.first_tile = static_cast<int>(int64_t{tiles} * unit.part / parts);
  unit.tiles = static_cast<int>(int64_t{tiles} * (unit.part + 1) / parts) - unit.first_tile;
  return unit;
}

struct DenseMaps {
  const CUtensorMap *queries, *keys, *values;
};

// One thread.
template <class Plan>
__device__ void bring_dense_queries(const DenseMaps& maps, const DenseUnit& unit, const DenseMemory<Plan>& memory) {
  arrive_and_expect(memory.queries_full(), Plan::query_bytes);
#pragma unroll
  for (int block = 0; block < Plan::blocks; ++block)
    copy_box(memory.queries() + block * Plan::rows * 128, maps.queries, unit.head * Plan::width + block * 64, unit.row,
             0, 0, 0, memory.queries_full());
}

// Another: this block's half of each tile, to both, in the order in which they are read: the keys of a tile before the
// values of the one before it.
template <class Plan>
__device__ void bring_dense_tiles(const DenseMaps& maps, const DenseUnit& unit, const DenseMemory<Plan>& memory,
                                  uint32_t rank) {
  Turn<Plan::stages> turn;
  const auto bring = [&](const CUtensorMap* map, int tile) {
    const uint32_t full = memory.full(turn.stage), to = memory.tile(turn.stage) + rank * Plan::half * 128;
    const int row = (unit.first_tile + tile) * Plan::tile + static_cast<int>(rank) * Plan::half;
    wait_for(memory.free(turn.stage), turn.parity ^ 1);
    arrive_and_expect(full, Plan::tile_bytes);
#pragma unroll
    for (int block = 0; block < Plan::blocks; ++block)
      copy_box_to(0b11, to + block * Plan::tile * 128, map, unit.group * Plan::width + block * 64, row, 0, 0, 0, full);
    turn.next();
  };
  bring(maps.keys, 0);
  for (int tile = 1; tile < unit.tiles; ++tile) {
    bring(maps.keys, tile);
    bring(maps.values, tile - 1);
  }
  bring(maps.values, unit.tiles - 1);
}

// What a thread keeps of each of its two query rows: in base 2, the scale included. A maximum is raised only where it
// would be passed by so much that exp2 of it would lose bits of the sums, which are then seldom scaled.
struct DenseRow {
  static constexpr float slack = 8;
  float maximum = -INFINITY, denominator = 0;
};

// A tile's scores, as wgmma leaves them, become probabilities where they stand; factors of what was summed before.
__device__ inline void soften_tile(float (&scores)[64], float scale, DenseRow (&rows)[2], float (&factors)[2]) {
#pragma unroll
  for (int below = 0; below < 2; ++below) {
    DenseRow& row = rows[below];
    float even = -INFINITY, odd = -INFINITY;
#pragma unroll
    for (int i = below * 2; i < 64; i += 4) {
      even = fmaxf(even, scores[i]);
      odd = fmaxf(odd, scores[i + 1]);
    }
    float highest = fmaxf(even, odd);
    highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 1));
    highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 2)) * scale;
    const bool raised = highest > row.maximum + DenseRow::slack;
    factors[below] = raised ? power_of_two(row.maximum - highest) : 1.0f;
    if (raised) row.maximum = highest;
    float sums[2] = {};
#pragma unroll
    for (int i = below * 2; i < 64; i += 4) {
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        scores[i + k] = power_of_two(fmaf(scores[i + k], scale, -row.maximum));
        sums[k] += scores[i + k];
      }
    }
    row.denominator = row.denominator * factors[below] + (sums[0] + sums[1]);
  }
}

// Products in the background have left these: nothing that reads them is to be moved before this.
template <int count>
__device__ void hold(float (&sums)[count]) {
#pragma unroll
  for (int i = 0; i < count; ++i) asm volatile("" : "+f"(sums[i]));
}

// A warpgroup's queries [64, width], scores [64, 128] and sums [64, width], in registers.
template <class Plan>
struct DenseProducts {
  static constexpr int steps = Plan::width / 16, key_steps = Plan::tile / 16;
  uint32_t queries[steps][4];
  float scores[64];
  uint32_t probabilities[key_steps][4];
  float sums[Plan::width / 2] = {};

  __device__ void take_queries(const DenseMemory<Plan>& memory, int group) {
    const int lane = static_cast<int>(threadIdx.x) % warp, own = static_cast<int>(threadIdx.x) / warp % 4;
    const int row = group * Plan::group_rows + own * 16 + lane % 16;
#pragma unroll
    for (int step = 0; step < steps; ++step)
      load_matrices(queries[step], memory.queries() + (step / 4 * Plan::rows + row) * 128 +
                                       place_of(row, step % 4 * 2 + lane / 16) * 16);
  }
  __device__ void begin_scores(uint32_t tile) {
    const uint64_t keys = matrix_at(tile, 16, 1024);
    open_products();
#pragma unroll
    for (int step = 0; step < steps; ++step)
      multiply_keys(scores, queries[step], keys + (step / 4 * Plan::tile * 128 + step % 4 * 32) / 16, step > 0);
    close_products();
  }
  __device__ void begin_sums(uint32_t tile) {
    const uint64_t values = matrix_at(tile, Plan::tile * 128, 1024);
    open_products();
#pragma unroll
    for (int step = 0; step < key_steps; ++step)
      multiply_values(sums, probabilities[step], values + step * 16 * 128 / 16);
    close_products();
  }
  __device__ void pack() {
#pragma unroll
    for (int step = 0; step < key_steps; ++step) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        probabilities[step][i] = packed_pair(scores[step * 8 + i * 2], scores[step * 8 + i * 2 + 1]);
    }
  }
  __device__ void scale_sums(const float (&factors)[2]) {
#pragma unroll
    for (int i = 0; i < Plan::width / 2; ++i) sums[i] *= factors[i / 2 % 2];
  }
};

template <class Plan>
__device__ void store_dense_rows(const DenseAttentionRun& run, const DenseUnit& unit, int group,
                                 const DenseRow (&rows)[2], DenseProducts<Plan>& products) {
  const int lane = static_cast<int>(threadIdx.x) % warp, own = static_cast<int>(threadIdx.x) / warp % 4;
  float shares[2], log_sum_exps[2];
#pragma unroll
  for (int below = 0; below < 2; ++below) {
    float denominator = rows[below].denominator;
    denominator += __shfl_xor_sync(0xffffffffu, denominator, 1);
    denominator += __shfl_xor_sync(0xffffffffu, denominator, 2);
    shares[below] = 1 / denominator;  // of one key at least
    log_sum_exps[below] = (rows[below].maximum + log2f(denominator)) * 0.6931471805599453f;
  }
  products.scale_sums(shares);
#pragma unroll
  for (int below = 0; below < 2; ++below) {
    const int row = unit.row + group * Plan::group_rows + own * 16 + below * 8 + lane / 4;
    Bfloat16* to = static_cast<Bfloat16*>(run.output) +
                   ((unit.part * run.query_rows + row) * run.heads + unit.head) * Plan::width + lane % 4 * 8;
#pragma unroll
    for (int i = 0; i < Plan::width / 8; i += 4) {
      const uint4 eight = eight_columns(&products.sums[i * 4 + below * 2]);
      if (row < run.query_rows) *reinterpret_cast<uint4*>(to + i * 8) = eight;
    }
    if (lane % 4 == 0 && row < run.query_rows)
      run.log_sum_exp[(unit.part * run.heads + unit.head) * run.query_rows + row] = log_sum_exps[below];
  }
}

// A warpgroup.
template <class Plan>
__device__ void attend_dense_rows(const DenseAttentionRun& run, const DenseUnit& unit, const DenseMemory<Plan>& memory,
                                  uint32_t rank, int group) {
  const float scale = run.scale * 1.4426950408889634f;  // base 2
  const int rows_of_last = static_cast<int>(run.key_rows) - (unit.first_tile + unit.tiles - 1) * Plan::tile;
  DenseProducts<Plan> products;
  DenseRow rows[2];
  float factors[2];
  Turn<Plan::stages> turn;
  const auto come = [&] {
    wait_for(memory.full(turn.stage), turn.parity);
    const uint32_t stage = turn.stage;
    turn.next();
    return stage;
  };
  const auto let_go = [&](uint32_t stage) {
    __syncwarp();
    if (threadIdx.x % warp != 0) return;
    arrive(memory.free(stage));
    arrive_there(place_in(memory.free(stage), rank ^ 1));
  };
  const auto soften = [&](int tile) {
    hold(products.scores);
    if (tile == unit.tiles - 1 && rows_of_last < Plan::tile) hide_keys(products.scores, rows_of_last);
    soften_tile(products.scores, scale, rows, factors);
  };
  wait_for(memory.queries_full(), 0);
  products.take_queries(memory, group);
  const uint32_t first = come();
  products.begin_scores(memory.tile(first));
  wait_for_products<0>();
  let_go(first);
  soften(0);
  products.pack();
  for (int tile = 1; tile < unit.tiles; ++tile) {
    const uint32_t keys = come();
    products.begin_scores(memory.tile(keys));
    const uint32_t values = come();
    products.begin_sums(memory.tile(values));
    wait_for_products<1>();
    let_go(keys);
    soften(tile);
    wait_for_products<0>();
    hold(products.sums);
    let_go(values);
    if (__any_sync(0xffffffffu, factors[0] != 1.0f || factors[1] != 1.0f)) products.scale_sums(factors);
    products.pack();
  }
  products.begin_sums(memory.tile(come()));
  wait_for_products<0>();
  hold(products.sums);
  store_dense_rows(run, unit, group, rows, products);
}

// Empty where it is compiled for other GPUs than sm_90a.
template <class Plan>
__global__ void __launch_bounds__(Plan::threads, 1)
    attend_dense(const DenseAttentionRun run, const __grid_constant__ CUtensorMap queries,
                 const __grid_constant__ CUtensorMap keys, const __grid_constant__ CUtensorMap values) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) unsigned char dense_memory[];
  const DenseMemory<Plan> memory{shared_address(dense_memory)};
  const uint32_t rank = rank_in_cluster();
  if (threadIdx.x == 0) {
    fetch_map(&queries);
    fetch_map(&keys);
    fetch_map(&values);
    for (uint32_t stage = 0; stage < Plan::stages; ++stage) {
      make_barrier(memory.full(stage), 1);
      make_barrier(memory.free(stage), 2 * Plan::groups * 4);  // the warps of both blocks
    }
    make_barrier(memory.queries_full(), 1);
    show_barriers();
  }
  const DenseUnit unit = dense_unit<Plan>(run, rank);
  const DenseMaps maps = {&queries, &keys, &values};
  share_work<Plan>([&] { bring_dense_queries(maps, unit, memory); },
                   [&] { bring_dense_tiles(maps, unit, memory, rank); },
                   [&](int group) { attend_dense_rows(run, unit, memory, rank, group); });
#endif
}

}  // namespace cepe::ops::cuda
