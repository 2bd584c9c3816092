// Attention whose keys are its values, of so many query rows that it is two products (Hopper, sm_90a): scores, their
// exponentials written as bfloat16, and those times the states.
// Bound: 4 * query rows * cached rows * width operations / 989 TFLOP/s (some 780 at the 700 W of an H200). The
// exponentials, 2 bytes for each query row and cached row, are written and read again: 67 MB of 2,048 x 16,384 rows,
// 32 us of the memory's time beside 180 us of the tensor cores'.
// Design: at width 1024 one kernel (latent_hopper.cuh) has no room for a second tile's scores beside the sums of a
// first, so that scores, exchange and softmax follow one another. Here the first kernel is a product as
// fused_product.cuh makes them, with the exponential for what follows it: of a tile of 128 x 128, relative to a power
// of two for each of its rows. These powers and the sums go into two tables. In the second a cluster of two blocks
// takes tiles of 128 query rows each and the same 256 columns: two warpgroups of 64 rows each multiply what they read
// by its tile's power over the row's largest so far, which is exact, on the way to the tensor cores. (Of 128 columns a
// block of 64 cached rows is 32 KB for 512 cycles of products, as much as comes to a multiprocessor in that time; so 48
// KB for 1,024.) Where there would be too few such tiles, two clusters share one's cached rows, and their warpgroups
// give each other, through memory and as bfloat16, the sums of half of the columns each: either stores the other half.
// Where a page is short, its missing rows are zeros of the copy engine. How near, 2,048 x 16,384 rows of 1024: 104 and
// 97 us within a prompt, the tensor cores busy for 0.75 of the first one's cycles and 0.86 of the second's main loop;
// what else holds them back is power: with states of zeros both take 189 us, not 231 (in a row). Tried: the
// exponentials straight from memory to registers, a tile ahead: 199 us for the second. A largest exponent found before
// it instead of on its way: 4 us more. All sums of both left in memory and added up by whoever ends last: 5 us more;
// and 4 more as float32. Results of the first one's two warpgroups through one place, which leaves room for a sixth
// stage: nothing. Clusters of four, to which a third less would come from the second-level cache: only 30 are there
// at one time.
#pragma once

#include "ops/cuda/approximate.cuh"
#include "ops/cuda/eight_columns.cuh"
#include "ops/cuda/fused_product.cuh"
#include "ops/cuda/hidden_keys.cuh"
#include "ops/cuda/latent_tiles.cuh"

namespace cepe::ops::cuda {

struct LatentProducts {
  int row_pairs;       // of 2 * 128 query rows
  int tiles_per_page;  // of 128 cached rows
  int columns;         // tiles of 256 columns
  int blocks;          // of 64 columns
  int room;            // tiles of cached rows that the tables have room for
  // [row_pairs * 256, room], of each query row and tile: the power's exponent (-infinity: no row), the sum.
  float *exponents, *sums;
  int parts;       // of the cached rows, by whole pages: two where there would be too few tiles for all multiprocessors
  int* given;      // [tiles, 4 warpgroups, 2 parts]: whether `partial` is written
  uint4* partial;  // [tiles, 4 warpgroups, 2 parts, 9, 128 threads]: HalfSums
  __host__ __device__ int all_given() const { return parts > 1 ? row_pairs * columns * 4 * parts : 0; }
};

inline constexpr int key_tile = 128, key_half = 64;  // cached rows: of a tile, of a box

// Of cached rows [high * index, high * index + high) of a page, for CopyRows: rows that are not there become zeros, as
// copy_rows_there (latent_tiles.cuh) has it. Where none is, one that is there stands in for the first, of the page or,
// if it has none, of the queries: its probability is zero.
struct PageBox {
  int before;
  uint64_t pieces;
};
template <int high>
__device__ PageBox box_of(const PagedAttentionRun& run, int64_t page, int page_rows, int index) {
  if (page_rows == 0) page = reinterpret_cast<int64_t>(run.queries);
  const int first = index * high < page_rows ? index * high : 0;
  const int before = high - min(max(page_rows - index * high, 1), high);
  return {before, (static_cast<uint64_t>(page + (first - before) * run.key_stride * 2) - map_base) / 16};
}
// To both blocks.
struct CopyRows {
  const CUtensorMap* states;
  PageBox box;
  __device__ void operator()(int block, uint32_t to, uint32_t full) const {
    copy_box_to(0b11, to, states, 0, box.before, block, static_cast<int>(box.pieces & ((uint64_t{1} << map_bits) - 1)),
                static_cast<int>(box.pieces >> map_bits), full);
  }
};
// Rows of a page of which nothing is reckoned before half() is called.
struct PageRows {
  const PagedAttentionRun* run;
  const CUtensorMap* states;
  int64_t page;
  int page_rows, index;
  __device__ CopyRows half() const { return {states, box_of<key_half>(*run, page, page_rows, index)}; }
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
    if (rows < key_tile) hide_keys(sums, rows);
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
      return PageRows{&run, &states, run.keys[page], run.rows[page], index};
    };
  });
  // What was in the workspace before is used no more, and the next kernel waits for this one.
  const int first = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  for (int i = first; i < shape.all_given(); i += static_cast<int>(gridDim.x * blockDim.x)) shape.given[i] = 0;
#endif
}

// Exponentials come in blocks of 64 cached rows, values in blocks of 32, each into a ring of its own.
struct ValuePlan {
  static constexpr int rows = 128, columns = 256, depth = key_half, value_depth = 32;
  static constexpr int stages = 4, value_stages = 10, groups = 2, group_threads = 4 * warp;
  static constexpr int threads = (groups + 1) * group_threads, launch_registers = 65536 / threads / 8 * 8;
  static constexpr int copy_registers = 40, sum_registers = 232;
  static constexpr int stage_bytes = rows * depth * 2;
  static constexpr int box_bytes = value_depth * box_columns * 2, half_bytes = 2 * box_bytes;
  static constexpr int value_stage_bytes = 2 * half_bytes;
  static constexpr int values_at = stages * stage_bytes, barrier_at = values_at + value_stages * value_stage_bytes;
  static constexpr int shared_bytes = barrier_at + 2 * (stages + value_stages) * 8;
  static_assert(copy_registers + groups * sum_registers <= launch_registers * (groups + 1) && shared_bytes <= 232448);
};

// One of the rings: barriers as ProductMemory has them.
struct ValueRing {
  uint32_t base, stage_bytes, barriers;
  __device__ uint32_t stage(uint32_t number) const { return base + number * stage_bytes; }
  __device__ uint32_t full(uint32_t number) const { return barriers + number * 16; }
  __device__ uint32_t free(uint32_t number) const { return full(number) + 8; }
};
struct ValueMemory {
  uint32_t base;
  __device__ ValueRing exponentials() const { return {base, ValuePlan::stage_bytes, base + ValuePlan::barrier_at}; }
  __device__ ValueRing values() const {
    return {base + ValuePlan::values_at, ValuePlan::value_stage_bytes,
            base + ValuePlan::barrier_at + ValuePlan::stages * 16};
  }
};
// Where the two rings are read next.
struct ValueTurns {
  Turn<ValuePlan::stages> exponentials;
  Turn<ValuePlan::value_stages> values;
};

// What a cluster takes in turn: a pair of row tiles, a tile of columns, a part of the cached rows. The parts of a tile
// are neighbours, which two clusters take at one time.
struct ValueUnit {
  int row_pair, column, part;
  int first_page, last_page;
};
__device__ inline int value_units(const LatentProducts& shape) { return shape.row_pairs * shape.columns * shape.parts; }
__device__ inline ValueUnit value_unit(const PagedAttentionRun& run, const LatentProducts& shape, int index) {
  const int tile = index / shape.parts, part = index % shape.parts;
  const int first = run.first_page[0], pages = run.first_page[1] - first;
  return {tile % shape.row_pairs, tile / shape.row_pairs, part, first + pages * part / shape.parts,
          first + pages * (part + 1) / shape.parts};
}

// One thread: this block's rows of the exponentials, in blocks of 64 cached rows.
__device__ inline void bring_exponentials(const PagedAttentionRun& run, const LatentProducts& shape,
                                          const ValueMemory& memory, uint32_t rank, const CUtensorMap* exponentials) {
  using Plan = ValuePlan;
  const int clusters = static_cast<int>(gridDim.x) / 2, all = value_units(shape);
  const ValueRing ring = memory.exponentials();
  Turn<Plan::stages> turn;
  for (int index = static_cast<int>(blockIdx.x) / 2; index < all; index += clusters) {
    const ValueUnit unit = value_unit(run, shape, index);
    const int row = (unit.row_pair * 2 + static_cast<int>(rank)) * Plan::rows;
    const int page = shape.tiles_per_page * key_tile, end = (unit.last_page - run.first_page[0]) * page;
    for (int key = (unit.first_page - run.first_page[0]) * page; key < end; key += Plan::depth, turn.next()) {
      wait_for(ring.free(turn.stage), turn.parity ^ 1);
      arrive_and_expect(ring.full(turn.stage), Plan::stage_bytes);
      copy_box(ring.stage(turn.stage), exponentials, key, row, 0, 0, 0, ring.full(turn.stage));
    }
  }
}

// Another: its half of the columns, in blocks of 32 cached rows. A page's address is asked for while the page before it
// is read.
__device__ inline void bring_values(const PagedAttentionRun& run, const LatentProducts& shape,
                                    const ValueMemory& memory, uint32_t rank, const CUtensorMap* states) {
  using Plan = ValuePlan;
  const int clusters = static_cast<int>(gridDim.x) / 2, all = value_units(shape);
  const int boxes = shape.tiles_per_page * key_tile / Plan::value_depth;
  const ValueRing ring = memory.values();
  Turn<Plan::value_stages> turn;
  for (int index = static_cast<int>(blockIdx.x) / 2; index < all; index += clusters) {
    const ValueUnit unit = value_unit(run, shape, index);
    if (unit.first_page == unit.last_page) continue;
    const int block = (unit.column * 2 + static_cast<int>(rank)) * 2;
    int64_t next_address = run.keys[unit.first_page];
    int next_rows = run.rows[unit.first_page];
    for (int page = unit.first_page; page < unit.last_page; ++page) {
      const int64_t address = next_address;
      const int page_rows = next_rows, following = min(page + 1, unit.last_page - 1);
      next_address = run.keys[following];
      next_rows = run.rows[following];
      for (int box = 0; box < boxes; ++box, turn.next()) {
        wait_for(ring.free(turn.stage), turn.parity ^ 1);
        arrive_and_expect(ring.full(turn.stage), Plan::value_stage_bytes);
        CopyRows{states, box_of<Plan::value_depth>(run, address, page_rows, box)}(
            block, ring.stage(turn.stage) + rank * Plan::half_bytes, ring.full(turn.stage));
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

// [0]: of a tile's first 128 columns, [1]: of its others, laid out as multiply_values has them.
using ValueSums = float[2][64];

// What a thread has of its two rows: sums of exponentials times 2^-highest.
struct ValueState {
  float2 highest = {-INFINITY, -INFINITY}, totals = {0, 0};
};

// below: which of the two rows.
__device__ inline void scale_row(ValueSums& sums, int below, float factor) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      sums[half][j * 4 + below * 2] *= factor;
      sums[half][j * 4 + below * 2 + 1] *= factor;
    }
  }
}

__device__ inline void raise(float& highest, float exponent, float& total, ValueSums& sums, int below) {
  const float factor = exponent > highest ? relative(highest, exponent) : 1.0f;
  highest = fmaxf(highest, exponent);
  total *= factor;
  scale_row(sums, below, factor);
}

// The unit's product, of this warpgroup's 64 rows; tiles of cached rows from `first` on.
__device__ inline void add_value_tiles(const LatentProducts& shape, const ValueMemory& memory, uint32_t rank, int group,
                                       int row, int first, int tiles, ValueTurns& turns, ValueSums& sums,
                                       ValueState& state) {
  using Plan = ValuePlan;
  const int thread = static_cast<int>(threadIdx.x) % Plan::group_threads, lane = thread % warp;
  const auto states_of = [&](int tile) {
    const int64_t upper = int64_t{row} * shape.room + first + min(tile, tiles - 1), lower = upper + 8 * shape.room;
    return make_float4(shape.exponents[upper], shape.sums[upper], shape.exponents[lower], shape.sums[lower]);
  };
  const ValueRing powers = memory.exponentials(), values = memory.values();
  uint32_t pairs[2][4][4];
  uint32_t before = 0;
  float4 next = states_of(0), after = states_of(1);
  for (int tile = 0; tile < tiles; ++tile) {
    const float4 now = next;
    next = after;
    after = states_of(tile + 2);  // two tiles ahead: what it takes to come
    if (__any_sync(0xffffffffu, now.x > state.highest.x + exponent_slack || now.z > state.highest.y + exponent_slack)) {
      wait_for_products<0>();
      raise(state.highest.x, now.x, state.totals.x, sums, 0);
      raise(state.highest.y, now.z, state.totals.y, sums, 1);
    }
    const float upper = relative(now.x, state.highest.x), lower = relative(now.z, state.highest.y);
    const Pair uppers = __float2bfloat162_rn(upper), lowers = __float2bfloat162_rn(lower);
    state.totals.x += upper * now.y;
    state.totals.y += lower * now.w;
#pragma unroll
    for (int half = 0; half < 2; ++half, turns.exponentials.next()) {
      const uint32_t stage = turns.exponentials.stage;
      wait_for(powers.full(stage), turns.exponentials.parity);
      const int own = thread / warp * 16 + lane % 16;
      const uint32_t from = powers.stage(stage) + (group * 64 + own) * 128;
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        uint32_t(&a)[4] = pairs[half][step];
        load_matrices(a, from + (((step * 2 + lane / 16) ^ (own & 7)) * 16));
        a[0] = scaled(a[0], uppers);
        a[1] = scaled(a[1], lowers);
        a[2] = scaled(a[2], uppers);
        a[3] = scaled(a[3], lowers);
      }
#pragma unroll
      for (int k = 0; k < 2; ++k, turns.values.next()) {
        wait_for(values.full(turns.values.stage), turns.values.parity);
        const uint64_t block = matrix_at(values.stage(turns.values.stage), Plan::box_bytes, 1024);
        open_products();
#pragma unroll
        for (int step = 0; step < 2; ++step) {
#pragma unroll
          for (int columns = 0; columns < 2; ++columns)
            multiply_values(sums[columns], pairs[half][k * 2 + step],
                            block + (columns * Plan::half_bytes + step * 2048) / 16);
        }
        close_products();
        // Not before: until they are used, what load_matrices asked for may still be on its way.
        if (k == 1 && lane == 0) arrive(powers.free(stage));
        if (k > 0 || half > 0 || tile > 0) {
          wait_for_products<1>();
          release_stage(values, before, rank, lane);
        }
        before = turns.values.stage;
      }
    }
  }
  wait_for_products<0>();
  release_stage(values, before, rank, lane);
}

// 1 / a row's total; rows: of the sequence.
__device__ inline float share_of(float total, int row, int rows) {
  if (row >= rows) total = 0;
  return total > 0 ? 1 / total : total == 0 ? 0.0f : total;  // NaN stays
}

// Of both of this thread's rows, the first of which is `row`: four eights of columns, from `column` on.
__device__ inline void store_eights(const PagedAttentionRun& run, int row, int column, const float* sums,
                                    float2 shares) {
  const int lane = static_cast<int>(threadIdx.x) % warp;
#pragma unroll
  for (int below = 0; below < 2; ++below) {
    const int own = row + below * 8;
    const float share = below == 0 ? shares.x : shares.y;
    const int64_t at = int64_t{own} * run.width + column;
    float mine[16];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      mine[j * 4] = sums[j * 4 + below * 2] * share;
      mine[j * 4 + 1] = sums[j * 4 + below * 2 + 1] * share;
    }
    if (run.bfloat16_output) {
      const uint4 eight = eight_columns(mine);
      if (own < run.query_rows)
        *reinterpret_cast<uint4*>(static_cast<Bfloat16*>(run.output) + at + lane % 4 * 8) = eight;
    } else if (own < run.query_rows) {
#pragma unroll
      for (int j = 0; j < 4; ++j)
        *reinterpret_cast<float2*>(static_cast<float*>(run.output) + at + j * 8 + lane % 4 * 2) =
            make_float2(mine[j * 4], mine[j * 4 + 1]);
    }
  }
}

__device__ inline float2 store_log_sum_exps(const PagedAttentionRun& run, int row, bool writes,
                                            const ValueState& state) {
  const int rows = run.first_query[1] - run.first_query[0], lane = static_cast<int>(threadIdx.x) % warp;
  const auto store = [&](int own, float highest, float total) {
    if (own >= rows) total = 0;
    if (writes && lane % 4 == 0 && own < run.query_rows)
      run.log_sum_exp[own] = (highest + log2f(total)) * 0.6931471805599453f;
  };
  store(row, state.highest.x, state.totals.x);
  store(row + 8, state.highest.y, state.totals.y);
  return {share_of(state.totals.x, row, rows), share_of(state.totals.y, row + 8, rows)};
}

// Half of the columns of a tile.
__device__ inline void store_half(const PagedAttentionRun& run, int row, int column, int half, const ValueSums& sums,
                                  float2 shares) {
#pragma unroll
  for (int i = 0; i < 4; ++i)
    store_eights(run, row, column * ValuePlan::columns + half * 128 + i * 32, &sums[half][i * 16], shares);
}

__device__ inline void store_values(const PagedAttentionRun& run, int row, int column, const ValueSums& sums,
                                    const ValueState& state) {
  const float2 shares = store_log_sum_exps(run, row, column == 0, state);
#pragma unroll
  for (int half = 0; half < 2; ++half) store_half(run, row, column, half, sums, shares);
}

// What a warpgroup gives the one that has the other part of its tile: its sums of the half of the columns that the
// other stores, as bfloat16, two eights of columns of a thread's two rows side by side, and its state. [9, threads].
struct HalfSums {
  static constexpr int packs = 8, all = packs + 1;
  uint4* first;  // this thread's
  int* given;
  __device__ uint4* at(int pack) const { return first + pack * ValuePlan::group_threads; }
};
__device__ inline HalfSums half_sums(const LatentProducts& shape, const ValueUnit& unit, uint32_t rank, int group,
                                     int part) {
  const int tile = (unit.column * shape.row_pairs + unit.row_pair) * 4 + static_cast<int>(rank) * 2 + group;
  const int at = tile * 2 + part;
  return {
      shape.partial + int64_t{at} * HalfSums::all * ValuePlan::group_threads + threadIdx.x % ValuePlan::group_threads,
      shape.given + at};
}

__device__ inline void give(const HalfSums& to, const float (&sums)[64], const ValueState& state) {
#pragma unroll
  for (int i = 0; i < HalfSums::packs; ++i) {
    const float* eight = sums + i * 8;
    __stcg(to.at(i), make_uint4(packed_pair(eight[0], eight[1]), packed_pair(eight[2], eight[3]),
                                packed_pair(eight[4], eight[5]), packed_pair(eight[6], eight[7])));
  }
  __stcg(reinterpret_cast<float4*>(to.at(HalfSums::packs)),
         make_float4(state.highest.x, state.totals.x, state.highest.y, state.totals.y));
}

__device__ inline void add_given(const HalfSums& from, const float (&mine)[2], const float (&its)[2],
                                 float (&sums)[64]) {
  uint4 packs[HalfSums::packs];
#pragma unroll
  for (int i = 0; i < HalfSums::packs; ++i) packs[i] = __ldcg(from.at(i));
#pragma unroll
  for (int i = 0; i < HalfSums::packs; ++i) {
    const uint32_t pairs[4] = {packs[i].x, packs[i].y, packs[i].z, packs[i].w};
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const float2 two = __bfloat1622float2(*reinterpret_cast<const Pair*>(&pairs[k]));
      float &first = sums[i * 8 + k * 2], &second = sums[i * 8 + k * 2 + 1];
      first = mine[k % 2] * first + its[k % 2] * two.x;
      second = mine[k % 2] * second + its[k % 2] * two.y;
    }
  }
}

// Two warpgroups of two clusters, of the same rows and columns, each with the sums over its part of the cached rows:
// part 0 stores the first half of the columns, part 1 the other. Each gives before it waits, and both clusters are
// there at one time, so that neither waits for long.
template <int part>
__device__ void meet(const PagedAttentionRun& run, const LatentProducts& shape, const ValueUnit& unit, uint32_t rank,
                     int group, int row, ValueSums& sums, const ValueState& state) {
  const HalfSums own = half_sums(shape, unit, rank, group, part), other = half_sums(shape, unit, rank, group, part ^ 1);
  give(own, sums[part ^ 1], state);
  __threadfence();
  wait_for_group(group + 1);
  if (threadIdx.x % ValuePlan::group_threads == 0) {
    store_released(own.given, 1);
    while (load_acquired(other.given) == 0) {
    }
  }
  wait_for_group(group + 1);
  const float4 its = __ldcg(reinterpret_cast<const float4*>(other.at(HalfSums::packs)));
  const ValueState joined = {{fmaxf(state.highest.x, its.x), fmaxf(state.highest.y, its.z)}, {}};
  const float factors[2] = {relative(state.highest.x, joined.highest.x), relative(state.highest.y, joined.highest.y)};
  const float its_factors[2] = {relative(its.x, joined.highest.x), relative(its.z, joined.highest.y)};
  add_given(other, factors, its_factors, sums[part]);
  const ValueState all = {
      joined.highest,
      {factors[0] * state.totals.x + its_factors[0] * its.y, factors[1] * state.totals.y + its_factors[1] * its.w}};
  const float2 shares = store_log_sum_exps(run, row, unit.column == 0 && part == 0, all);
  store_half(run, row, unit.column, part, sums, shares);
}

// A warpgroup: 64 rows of each of the cluster's units.
__device__ inline void add_latent_values(const PagedAttentionRun& run, const LatentProducts& shape,
                                         const ValueMemory& memory, uint32_t rank, int group) {
  using Plan = ValuePlan;
  const int clusters = static_cast<int>(gridDim.x) / 2, all = value_units(shape);
  const int thread = static_cast<int>(threadIdx.x) % Plan::group_threads, lane = thread % warp;
  ValueTurns turns;
  for (int index = static_cast<int>(blockIdx.x) / 2; index < all; index += clusters) {
    const ValueUnit unit = value_unit(run, shape, index);
    const int row =
        (unit.row_pair * 2 + static_cast<int>(rank)) * Plan::rows + group * 64 + thread / warp * 16 + lane / 4;
    ValueSums sums = {};
    ValueState state;
    if (unit.first_page < unit.last_page)
      add_value_tiles(shape, memory, rank, group, row, (unit.first_page - run.first_page[0]) * shape.tiles_per_page,
                      (unit.last_page - unit.first_page) * shape.tiles_per_page, turns, sums, state);
    if (shape.parts == 1) {
      store_values(run, row, unit.column, sums, state);
    } else if (unit.part == 0) {
      meet<0>(run, shape, unit, rank, group, row, sums, state);
    } else {
      meet<1>(run, shape, unit, rank, group, row, sums, state);
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
    const auto make = [](const ValueRing& ring, uint32_t stages, uint32_t readers) {
      for (uint32_t stage = 0; stage < stages; ++stage) {
        make_barrier(ring.full(stage), 1);
        make_barrier(ring.free(stage), readers);
      }
    };
    make(memory.exponentials(), Plan::stages, Plan::groups * 4);      // this block's warps
    make(memory.values(), Plan::value_stages, 2 * Plan::groups * 4);  // both blocks'
    show_barriers();
  }
  share_work<Plan>([&] { bring_exponentials(run, shape, memory, rank, &exponentials); },
                   [&] { bring_values(run, shape, memory, rank, &states); },
                   [&](int group) { add_latent_values(run, shape, memory, rank, group); });
#endif
}

}  // namespace cepe::ops::cuda
