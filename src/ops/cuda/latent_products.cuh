// Attention whose keys are its values, of so many query rows that it is two products (Hopper, sm_90a): scores, their
// exponentials written as bfloat16, and those times the states.
// Bound: 4 * query rows * cached rows * width operations / 989 TFLOP/s (some 780 at the 700 W of an H200). The
// exponentials, 2 bytes for each query row and cached row, are written and read again: 67 MB of 2,048 x 16,384 rows,
// 32 us of the memory's time beside 180 us of the tensor cores'.
// Design: at width 1024 one kernel (latent_hopper.cuh) has no room for a second tile's scores beside the sums of a
// first, so that scores, exchange and softmax follow one another. Here the first kernel is a product as
// fused_product.cuh makes them, with the exponential for what follows it: of a tile of 128 x 128, relative to a power
// of two for each of its rows. These powers and the sums go into two tables. The second kernel takes tiles of 128 query
// rows x 128 columns over all cached rows: two warpgroups of 64 rows each multiply what they read by its tile's power
// over the row's largest so far, which is exact, on the way to the tensor cores. Where a page is short, its missing
// rows are zeros of the copy engine. What holds it back, 2,048 x 16,384 rows of 1024: the first kernel takes 105 us,
// its tensor cores busy for 0.77 of the cycles (two warpgroups' exponentials take as long as their products), the
// second 110, 0.71 (a block of 64 cached rows takes 690 cycles instead of 512: what it reads and what comes fill shared
// memory's 128 bytes a cycle). The exponentials straight from memory to registers, a tile ahead: 199 us. A largest
// exponent found before the second product instead of on its way: 114.
#pragma once

#include "ops/cuda/approximate.cuh"
#include "ops/cuda/eight_columns.cuh"
#include "ops/cuda/fused_product.cuh"
#include "ops/cuda/latent_tiles.cuh"

namespace cepe::ops::cuda {

struct LatentProducts {
  int row_pairs;       // of 2 * 128 query rows
  int tiles_per_page;  // of 128 cached rows
  int columns;         // tiles of 128 columns
  int blocks;          // of 64 columns
  int room;            // tiles of cached rows that the tables have room for
  // [row_pairs * 256, room], of each query row and tile: the power's exponent (-infinity: no row), the sum.
  float *exponents, *sums;
};

inline constexpr int key_tile = 128, key_half = 64;  // cached rows: of a tile, of a box

// Of cached rows [64 * index, 64 * index + 64) of a page, for CopyHalf: rows that are not there become zeros, as
// copy_rows_there (latent_tiles.cuh) has it. Where none is, one that is there stands in for the first, of the page or,
// if it has none, of the queries: its probability is zero.
struct PageHalf {
  int before;
  uint64_t pieces;
};
__device__ inline PageHalf half_of(const PagedAttentionRun& run, int64_t page, int page_rows, int index) {
  if (page_rows == 0) page = reinterpret_cast<int64_t>(run.queries);
  const int first = index * key_half < page_rows ? index * key_half : 0;
  const int before = key_half - min(max(page_rows - index * key_half, 1), key_half);
  return {before, (static_cast<uint64_t>(page + (first - before) * run.key_stride * 2) - map_base) / 16};
}
// To both blocks.
struct CopyHalf {
  const CUtensorMap* states;
  PageHalf half;
  __device__ void operator()(int block, uint32_t to, uint32_t full) const {
    copy_box_to(0b11, to, states, 0, half.before, block,
                static_cast<int>(half.pieces & ((uint64_t{1} << map_bits) - 1)),
                static_cast<int>(half.pieces >> map_bits), full);
  }
};

// What becomes of the scores of query rows against a tile: powers of two relative to one exponent for each row, that of
// its largest score in the first tile that this warpgroup takes for it. bfloat16 and the sums have room for what is far
// larger; the largest of a tile is looked for again where it is 2^40 times as large, which the tile's sums tell.
struct ScoreResult {
  using Plan = ProductPlan<2>;
  LatentProducts shape;
  const int32_t* page_rows;  // of the sequence's pages
  float scale;               // base 2
  int rows = 0;              // of this tile
  int known_row[2] = {-1, -1};
  float known[2][2] = {};  // exponents of this thread's rows; [half][below]
  __device__ void begin(int column) {
    const int tile = column / key_tile;
    rows = page_rows[tile / shape.tiles_per_page] - tile % shape.tiles_per_page * key_tile;
  }
  // Of this thread's two rows; every lane of the warp calls it.
  __device__ void look(const float (&sums)[64], float (&exponents)[2]) const {
#pragma unroll
    for (int below = 0; below < 2; ++below) {
      float highest = -INFINITY;
#pragma unroll
      for (int j = 0; j < 16; ++j)
        highest = fmaxf(highest, fmaxf(sums[j * 4 + below * 2], sums[j * 4 + below * 2 + 1]));
      highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 1));
      highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 2));
      exponents[below] = ceilf(highest * scale);
    }
  }
  __device__ void finish(float (&sums)[64], int half, int row, int column, Pair (&results)[32]) {
    constexpr float too_much = 0x1p40f;
    const int lane = static_cast<int>(threadIdx.x) % warp;
    if (rows < key_tile) {
#pragma unroll
      for (int i = 0; i < 64; ++i)
        if (i / 4 * 8 + lane % 4 * 2 + i % 2 >= rows) sums[i] = -INFINITY;
    }
    float(&exponents)[2] = known[half];
    // The first tile may have had no row.
    bool again =
        known_row[half] != row || __any_sync(0xffffffffu, exponents[0] == -INFINITY || exponents[1] == -INFINITY);
    known_row[half] = row;
    float totals[2];
    while (true) {
      if (again) look(sums, exponents);
#pragma unroll
      for (int below = 0; below < 2; ++below) {
        const float base = exponents[below] == -INFINITY ? 0.0f : exponents[below];
        float total = 0;
#pragma unroll
        for (int j = 0; j < 16; ++j) {
          const float first = power_of_two(fmaf(sums[j * 4 + below * 2], scale, -base)),
                      second = power_of_two(fmaf(sums[j * 4 + below * 2 + 1], scale, -base));
          results[j * 2 + below] = __floats2bfloat162_rn(first, second);
          total += first + second;
        }
        total += __shfl_xor_sync(0xffffffffu, total, 1);
        totals[below] = total + __shfl_xor_sync(0xffffffffu, total, 2);
      }
      if (again || !__any_sync(0xffffffffu, totals[0] > too_much || totals[1] > too_much)) break;
      again = true;
    }
    if (lane % 4 == 0) {
      const int64_t at = int64_t{row} * shape.room + column / key_tile;
#pragma unroll
      for (int below = 0; below < 2; ++below) {
        shape.exponents[at + below * 8 * shape.room] = exponents[below];
        shape.sums[at + below * 8 * shape.room] = totals[below];
      }
    }
  }
};

__device__ inline int key_tiles_of(const PagedAttentionRun& run, const LatentProducts& shape) {
  return (run.first_page[1] - run.first_page[0]) * shape.tiles_per_page;
}

// Empty where it is compiled for other GPUs than sm_90a, as the next.
__global__ void __launch_bounds__(ScoreResult::Plan::threads, 1)
    score_latent_rows(const PagedAttentionRun run, const LatentProducts shape,
                      const __grid_constant__ CUtensorMap queries, const __grid_constant__ CUtensorMap states,
                      const __grid_constant__ CUtensorMap exponentials) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  const int first_page = run.first_page[0];
  const ProductTiles tiles = {.row_pairs = shape.row_pairs,
                              .columns = key_tiles_of(run, shape),
                              .blocks = shape.blocks,
                              .step = 0,
                              .second_half = 0,
                              .rows_first = true};
  const ScoreResult result = {shape, run.rows + first_page, run.scale * 1.4426950408889634f};
  run_products(tiles, &queries, &exponentials, result, [&](uint32_t rank) {
    return [&, rank](int column) {
      const int page = first_page + column / shape.tiles_per_page;
      const int index = column % shape.tiles_per_page * 2 + static_cast<int>(rank);
      return CopyHalf{&states, half_of(run, run.keys[page], run.rows[page], index)};
    };
  });
#endif
}

struct ValuePlan {
  static constexpr int rows = 128, columns = 128, depth = key_half, stages = 7, groups = 2, group_threads = 4 * warp;
  static constexpr int threads = (groups + 1) * group_threads, launch_registers = 65536 / threads / 8 * 8;
  static constexpr int copy_registers = 40, sum_registers = 232;
  static constexpr int x_bytes = rows * depth * 2, half_bytes = depth * columns / 2 * 2;
  static constexpr int stage_bytes = x_bytes + 2 * half_bytes;
  static constexpr int barrier_at = stages * stage_bytes;
  static constexpr int shared_bytes = barrier_at + 2 * stages * 8;
  static_assert(copy_registers + groups * sum_registers <= launch_registers * (groups + 1) && shared_bytes <= 232448);
};

struct ValueMemory {
  uint32_t base;
  __device__ uint32_t x(uint32_t stage) const { return base + stage * ValuePlan::stage_bytes; }
  __device__ uint32_t values(uint32_t stage) const { return x(stage) + ValuePlan::x_bytes; }
  __device__ uint32_t full(uint32_t stage) const { return base + ValuePlan::barrier_at + stage * 16; }
  __device__ uint32_t free(uint32_t stage) const { return full(stage) + 8; }
};

// One thread: blocks of 64 cached rows, this block's rows of the exponentials and its half of the columns. A page's
// address is asked for while the page before it is read.
__device__ inline void bring_values(const PagedAttentionRun& run, const LatentProducts& shape,
                                    const ValueMemory& memory, uint32_t rank, const CUtensorMap* exponentials,
                                    const CUtensorMap* states) {
  using Plan = ValuePlan;
  const int clusters = static_cast<int>(gridDim.x) / 2, all = shape.row_pairs * shape.columns;
  const int first_page = run.first_page[0], last_page = run.first_page[1];
  Turn<Plan::stages> turn;
  for (int index = static_cast<int>(blockIdx.x) / 2; index < all && first_page < last_page; index += clusters) {
    const int row = (index % shape.row_pairs * 2 + static_cast<int>(rank)) * Plan::rows;
    const int block = index / shape.row_pairs * 2 + static_cast<int>(rank);
    int64_t next_address = run.keys[first_page];
    int next_rows = run.rows[first_page], key = 0;
    for (int page = first_page; page < last_page; ++page) {
      const int64_t address = next_address;
      const int page_rows = next_rows, following = min(page + 1, last_page - 1);
      next_address = run.keys[following];
      next_rows = run.rows[following];
      for (int i = 0; i < shape.tiles_per_page * 2; ++i, key += key_half, turn.next()) {
        wait_in_block(memory.free(turn.stage), turn.parity ^ 1);
        const uint32_t full = memory.full(turn.stage);
        arrive_and_expect(full, Plan::stage_bytes);
        copy_box(memory.x(turn.stage), exponentials, key, row, 0, 0, 0, full);
        CopyHalf{states, half_of(run, address, page_rows, i)}(
            block, memory.values(turn.stage) + rank * Plan::half_bytes, full);
      }
    }
  }
}

__device__ inline uint32_t scaled(uint32_t pair, Pair factor) {
  const Pair product = __hmul2_rn(*reinterpret_cast<const Pair*>(&pair), factor);
  return *reinterpret_cast<const uint32_t*>(&product);
}

// What tiles' exponentials are relative to is raised only where it would be passed by this much.
inline constexpr float exponent_slack = 8;

// 2^(exponent - highest), a power of two; of a tile without a row nothing counts.
__device__ inline float relative(float exponent, float highest) {
  return exponent == -INFINITY ? 0.0f : power_of_two(exponent - highest);
}

// `sums`: of the row, pairs of columns four apart.
__device__ inline void raise(float& highest, float exponent, float& total, float* sums) {
  const float factor = exponent > highest ? relative(highest, exponent) : 1.0f;
  highest = fmaxf(highest, exponent);
  total *= factor;
#pragma unroll
  for (int j = 0; j < 16; ++j) {
    sums[j * 4] *= factor;
    sums[j * 4 + 1] *= factor;
  }
}

// A warpgroup: 64 rows of each of the cluster's tiles.
__device__ inline void add_latent_values(const PagedAttentionRun& run, const LatentProducts& shape,
                                         const ValueMemory& memory, uint32_t rank, int group) {
  using Plan = ValuePlan;
  const int clusters = static_cast<int>(gridDim.x) / 2, all = shape.row_pairs * shape.columns;
  const int tiles = key_tiles_of(run, shape), rows = run.first_query[1] - run.first_query[0];
  const int thread = static_cast<int>(threadIdx.x) % Plan::group_threads, lane = thread % warp;
  Turn<Plan::stages> turn;
  for (int index = static_cast<int>(blockIdx.x) / 2; index < all; index += clusters) {
    const int first_row = (index % shape.row_pairs * 2 + static_cast<int>(rank)) * Plan::rows + group * 64;
    const int row = first_row + thread / warp * 16 + lane / 4, column = index / shape.row_pairs;
    const auto states_of = [&](int tile) {
      const int64_t upper = int64_t{row} * shape.room + min(tile, tiles - 1), lower = upper + 8 * shape.room;
      return make_float4(shape.exponents[upper], shape.sums[upper], shape.exponents[lower], shape.sums[lower]);
    };
    float sums[64] = {};
    float2 highest = {-INFINITY, -INFINITY}, totals = {0, 0};  // of this thread's two rows
    uint32_t pairs[2][4][4];
    uint32_t before = 0;
    float4 next = {}, after = {};
    if (tiles > 0) {
      next = states_of(0);
      after = states_of(1);
    }
    for (int tile = 0; tile < tiles; ++tile) {
      const float4 now = next;
      next = after;
      after = states_of(tile + 2);  // two tiles ahead: what it takes to come
      if (__any_sync(0xffffffffu, now.x > highest.x + exponent_slack || now.z > highest.y + exponent_slack)) {
        wait_for_products<0>();
        raise(highest.x, now.x, totals.x, sums);
        raise(highest.y, now.z, totals.y, sums + 2);
      }
      const float upper = relative(now.x, highest.x), lower = relative(now.z, highest.y);
      const Pair uppers = __float2bfloat162_rn(upper), lowers = __float2bfloat162_rn(lower);
      totals.x += upper * now.y;
      totals.y += lower * now.w;
#pragma unroll
      for (int half = 0; half < 2; ++half, turn.next()) {
        wait_in_block(memory.full(turn.stage), turn.parity);
        const int own = thread / warp * 16 + lane % 16;
        const uint32_t from = memory.x(turn.stage) + (group * 64 + own) * 128;
#pragma unroll
        for (int step = 0; step < 4; ++step) {
          uint32_t(&a)[4] = pairs[half][step];
          load_matrices(a, from + (((step * 2 + lane / 16) ^ (own & 7)) * 16));
          a[0] = scaled(a[0], uppers);
          a[1] = scaled(a[1], lowers);
          a[2] = scaled(a[2], uppers);
          a[3] = scaled(a[3], lowers);
        }
        const uint64_t values = matrix_at(memory.values(turn.stage), Plan::half_bytes, 1024);
        open_products();
#pragma unroll
        for (int step = 0; step < 4; ++step) multiply_values(sums, pairs[half][step], values + step * 2048 / 16);
        close_products();
        if (half > 0 || tile > 0) {
          wait_for_products<1>();
          release_stage(memory, before, rank, lane);
        }
        before = turn.stage;
      }
    }
    wait_for_products<0>();
    if (tiles > 0) release_stage(memory, before, rank, lane);
#pragma unroll
    for (int below = 0; below < 2; ++below) {
      const int own = row + below * 8;
      const float total = own < rows ? (below == 0 ? totals.x : totals.y) : 0.0f;
      const float share = total > 0 ? 1 / total : total == 0 ? 0.0f : total;  // NaN stays
      const int64_t at = int64_t{own} * run.width + column * Plan::columns;
#pragma unroll
      for (int j = 0; j < 16; ++j) {
        sums[j * 4 + below * 2] *= share;
        sums[j * 4 + below * 2 + 1] *= share;
      }
      if (run.bfloat16_output) {
#pragma unroll
        for (int j = 0; j < 16; j += 4) {
          const uint4 eight = eight_columns(&sums[j * 4 + below * 2]);
          if (own < run.query_rows)
            *reinterpret_cast<uint4*>(static_cast<Bfloat16*>(run.output) + at + j * 8 + lane % 4 * 8) = eight;
        }
      } else if (own < run.query_rows) {
#pragma unroll
        for (int j = 0; j < 16; ++j) {
          *reinterpret_cast<float2*>(static_cast<float*>(run.output) + at + j * 8 + lane % 4 * 2) =
              make_float2(sums[j * 4 + below * 2], sums[j * 4 + below * 2 + 1]);
        }
      }
      if (column == 0 && lane % 4 == 0 && own < run.query_rows)
        run.log_sum_exp[own] = ((below == 0 ? highest.x : highest.y) + log2f(total)) * 0.6931471805599453f;
    }
  }
}

__global__ void __launch_bounds__(ValuePlan::threads, 1)
    add_latent_rows(const PagedAttentionRun run, const LatentProducts shape,
                    const __grid_constant__ CUtensorMap exponentials, const __grid_constant__ CUtensorMap states) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using Plan = ValuePlan;
  extern __shared__ __align__(1024) unsigned char product_memory[];
  const ValueMemory memory{shared_address(product_memory)};
  const uint32_t rank = rank_in_cluster();
  if (threadIdx.x == 0) {
    fetch_map(&exponentials);
    fetch_map(&states);
    for (uint32_t stage = 0; stage < Plan::stages; ++stage) {
      make_barrier(memory.full(stage), 1);
      make_barrier(memory.free(stage), 2 * Plan::groups * 4);  // the warps of both blocks
    }
    show_barriers();
  }
  arrive_at_cluster();
  wait_for_cluster();
  wait_for_predecessor();
  let_successor_begin();
  const int role = static_cast<int>(threadIdx.x) / Plan::group_threads;
  if (role == Plan::groups) {
    set_registers<Plan::copy_registers, Plan::launch_registers>();
    if (threadIdx.x % Plan::group_threads == 0) bring_values(run, shape, memory, rank, &exponentials, &states);
  } else {
    set_registers<Plan::sum_registers, Plan::launch_registers>();
    add_latent_values(run, shape, memory, rank, role);
  }
  __syncwarp();
  arrive_at_cluster();
  wait_for_cluster();  // the other block may still send to this one's memory and barriers
#endif
}

}  // namespace cepe::ops::cuda
