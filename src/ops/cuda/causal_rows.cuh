// Self-attention of short texts among the rows of a batch step: a token's query rows see the cached rows up to its own.
// Bound: for 64 tokens the bytes of keys and values / bandwidth; of a text without a past that is nothing (32 groups of
// 64 rows of width 128 are 1 MB), and the time is that of a launch and of three trips to memory, one after another.
// Design: a thread block has sixteen query rows of a sequence and group, so that a text's blocks read its rows again
// and again from the second-level cache. Each of its eight warps has every eighth sixteen of the cached rows, and meets
// the others once, at the end. Nothing goes through shared memory before: a lane loads 16 bytes of a row of keys, eight
// columns, and takes them for two steps of the product, whose columns are permuted alike in keys and queries; what it
// loads of values is transposed 8 x 8 in registers. Keys and values of the next sixteen are on their way meanwhile.
// How near: 5.1 us in a layer of a prompt of 64 tokens. (Each token as a sequence of its own, as paged_cluster.cuh has
// them, 2,048 units of one row: 13.6.)
#pragma once

#include "ops/cuda/in_line.cuh"
#include "ops/cuda/merge_parts.cuh"
#include "ops/cuda/row_values.cuh"
#include "ops/cuda/tensor_core.cuh"

namespace cepe::ops::cuda {

template <int width_>
struct CausalPlan {
  static constexpr int width = width_, rows = 16, tile = 16, warps = 8, threads = warps * warp;
  static constexpr int parts = width / 32;  // of 32 columns: 8 of each lane
  static constexpr int stride = width + 8;  // of a query row's sums in shared memory, which spreads them over banks
  static constexpr int shared_bytes = warps * rows * (stride + 2) * 4;
  static_assert(width % 32 == 0);
};

// Up to sixteen query rows of one sequence, and its pages, all but the last of which are full.
struct CausalUnit {
  int first_query = 0, query_rows = 0;  // none: there is no such unit
  int within = 0, of_all = 0;           // the first's place among the sequence's rows, and how many there are
  int first_page = 0, pages = 0;
};

// The unit `number` of those of all sequences. All lanes of a warp; what the tables say comes by one trip to memory.
template <class Plan>
__device__ CausalUnit causal_unit(const PagedAttentionRun& run, int number) {
  const int lane = static_cast<int>(threadIdx.x) % warp, sequences = static_cast<int>(run.sequences);
  for (int first = 0; first < sequences; first += warp) {
    const int own = min(first + lane, sequences), next = min(own + 1, sequences);
    const int begin = run.first_query[own], end = run.first_query[next];
    const int first_page = run.first_page[own], last_page = run.first_page[next];
    const int units = (end - begin + Plan::rows - 1) / Plan::rows;
    int until = units;
#pragma unroll
    for (int step = 1; step < warp; step *= 2) {
      const int before = __shfl_up_sync(0xffffffffu, until, step);
      if (lane >= step) until += before;
    }
    const uint32_t behind = __ballot_sync(0xffffffffu, until > number);
    if (behind == 0) {
      number -= __shfl_sync(0xffffffffu, until, warp - 1);
      continue;
    }
    const int which = __ffs(static_cast<int>(behind)) - 1;
    const auto of_it = [&](int value) { return __shfl_sync(0xffffffffu, value, which); };
    const int within = (number - of_it(until - units)) * Plan::rows, from = of_it(begin), of_all = of_it(end) - from;
    const int page = of_it(first_page);
    return {from + within, min(Plan::rows, of_all - within), within, of_all, page, of_it(last_page) - page};
  }
  return {};
}

// Cached rows of the sequence, and tiles of it up to what the unit's last row sees.
struct CausalReach {
  int all = 0, tiles = 0;
};

// Cached rows that the unit's row `index` sees.
__device__ inline int rows_seen(const PagedAttentionRun& run, const CausalUnit& unit, int all, int index) {
  const int each = static_cast<int>(run.rows_of_token);
  return all - (unit.of_all - 1) / each + (unit.within + index) / each;
}

template <class Plan>
__device__ CausalReach causal_reach(const PagedAttentionRun& run, const CausalUnit& unit) {
  if (unit.pages <= 0) return {};
  const int page_rows = static_cast<int>(run.page_rows), each_page = (page_rows + Plan::tile - 1) / Plan::tile;
  const int all = (unit.pages - 1) * page_rows + run.rows[unit.first_page + unit.pages - 1];
  const int seen = max(rows_seen(run, unit, all, unit.query_rows - 1), 0);
  return {all, seen / page_rows * each_page + (seen % page_rows + Plan::tile - 1) / Plan::tile};
}

// A tile: its first row in keys and in values, of the lane's group and columns, how many rows it has, and the first's
// place among the sequence's.
struct CausalTile {
  const Bfloat16 *keys, *values;
  int rows, place;
};

template <class Plan>
__device__ CausalTile causal_tile(const PagedAttentionRun& run, const CausalUnit& unit, int index, int group) {
  const int lane = static_cast<int>(threadIdx.x) % warp, page_rows = static_cast<int>(run.page_rows);
  const int each_page = (page_rows + Plan::tile - 1) / Plan::tile;
  const int page = index / each_page, first = index % each_page * Plan::tile;
  if (page >= unit.pages) return {nullptr, nullptr, 0, 0};
  const int at = unit.first_page + page, column = group * Plan::width + lane % 4 * 8;
  return {reinterpret_cast<const Bfloat16*>(run.keys[at]) + first * run.key_stride + column,
          reinterpret_cast<const Bfloat16*>(run.values[at]) + first * run.value_stride + column, run.rows[at] - first,
          page * page_rows + first};
}

// Of rows lane / 4 and lane / 4 + 8 of sixteen, eight columns of every 32.
template <class Plan>
using CausalRows = uint4[2][Plan::parts];

template <class Plan>
__device__ void ask_for_causal_rows(CausalRows<Plan>& to, const Bfloat16* from, int rows, int64_t stride) {
  const int row = static_cast<int>(threadIdx.x) % warp / 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int part = 0; part < Plan::parts; ++part)
      to[half][part] = load_where(row + half * 8 < rows, from + (row + half * 8) * stride + part * 32);
  }
}

// The unit's queries likewise, zeros where there is none. No branch between the loads: all are on their way together.
template <class Plan>
__device__ void load_causal_queries(CausalRows<Plan>& to, const PagedAttentionRun& run, const CausalUnit& unit,
                                    int group) {
  const int lane = static_cast<int>(threadIdx.x) % warp;
  const int64_t stride = run.groups * Plan::width;
  const int64_t at = unit.first_query * stride + group * Plan::width + lane % 4 * 8;
  if (run.bfloat16_queries)
    return ask_for_causal_rows<Plan>(to, static_cast<const Bfloat16*>(run.queries) + at, unit.query_rows, stride);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = lane / 4 + half * 8;
    const auto* from = static_cast<const float*>(run.queries) + at + row * stride;
#pragma unroll
    for (int part = 0; part < Plan::parts; ++part) {
      to[half][part] = make_uint4(0, 0, 0, 0);
      if (row >= unit.query_rows) continue;
      const Pack<float, 4> first = load<4>(from + part * 32), second = load<4>(from + part * 32 + 4);
      Pack<Bfloat16, 8> eight;
#pragma unroll
      for (int i = 0; i < 8; ++i) eight.at[i] = narrowed<Bfloat16>(i < 4 ? first.at[i] : second.at[i - 4]);
      to[half][part] = *reinterpret_cast<const uint4*>(&eight);
    }
  }
}

// What a lane holds of query rows lane / 4 and lane / 4 + 8: columns part * 32 + lane % 4 * 8 + j * 2 + {0, 1} of each
// in sums[part * 4 + j].
template <class Plan>
struct CausalSums {
  float sums[Plan::parts * 4][4] = {};
  float maximum[2] = {-INFINITY, -INFINITY}, denominator[2] = {};
};

// Scores of cached rows j * 8 + lane % 4 * 2 + {0, 1}.
template <class Plan>
__device__ void causal_scores(const CausalRows<Plan>& queries, const CausalRows<Plan>& keys, float (&scores)[2][4]) {
#pragma unroll
  for (int part = 0; part < Plan::parts; ++part) {
    const uint4 &upper_rows = queries[0][part], &lower_rows = queries[1][part];
    const uint32_t first[4] = {upper_rows.x, lower_rows.x, upper_rows.y, lower_rows.y},
                   second[4] = {upper_rows.z, lower_rows.z, upper_rows.w, lower_rows.w};
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      multiply(scores[j], first, keys[j][part].x, keys[j][part].y);
      multiply(scores[j], second, keys[j][part].z, keys[j][part].w);
    }
  }
}

// -> probabilities, rounded; seen: cached rows of the tile that either query row sees.
template <class Plan>
__device__ void soften_causal(float (&scores)[2][4], const int (&seen)[2], float scale, CausalSums<Plan>& own) {
  const int column = static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float highest = -INFINITY;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float& score = scores[i / 2][half * 2 + i % 2];
      score = i / 2 * 8 + column + i % 2 < seen[half] ? score * scale : -INFINITY;
      highest = fmaxf(highest, score);
    }
    highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 1));
    highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 2));
    highest = fmaxf(highest, own.maximum[half]);
    const float base = highest == -INFINITY ? 0.0f : highest, factor = exp2f(own.maximum[half] - base);
    own.maximum[half] = highest;
    own.denominator[half] *= factor;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float& score = scores[i / 2][half * 2 + i % 2];
      score = rounded<Bfloat16>(exp2f(score - base));
      own.denominator[half] += score;
    }
#pragma unroll
    for (auto& sums : own.sums) {
      sums[half * 2] *= factor;
      sums[half * 2 + 1] *= factor;
    }
  }
}

template <class Plan>
__device__ void add_causal(const float (&probabilities)[2][4], const CausalRows<Plan>& values, CausalSums<Plan>& own) {
  const auto &left = probabilities[0], &right = probabilities[1];
  const uint32_t a[4] = {packed_pair(left[0], left[1]), packed_pair(left[2], left[3]), packed_pair(right[0], right[1]),
                         packed_pair(right[2], right[3])};
#pragma unroll
  for (int part = 0; part < Plan::parts; ++part) {
    const uint4 &above = values[0][part], &below = values[1][part];
    const auto add = [&](int j, uint32_t first, uint32_t second) {
      multiply(own.sums[part * 4 + j], a, transposed(first), transposed(second));
    };
    add(0, above.x, below.x);
    add(1, above.y, below.y);
    add(2, above.z, below.z);
    add(3, above.w, below.w);
  }
}

// Where the warps of a block meet.
template <class Plan>
struct CausalMemory {
  float sums[Plan::warps][Plan::rows][Plan::stride];
  float2 states[Plan::warps][Plan::rows];  // maximum, denominator
};

template <class Plan>
__device__ void put_causal(const CausalSums<Plan>& own, float (&sums)[Plan::rows][Plan::stride],
                           float2 (&states)[Plan::rows]) {
  const int lane = static_cast<int>(threadIdx.x) % warp;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = lane / 4 + half * 8;
    float denominator = own.denominator[half];
    denominator += __shfl_xor_sync(0xffffffffu, denominator, 1);
    denominator += __shfl_xor_sync(0xffffffffu, denominator, 2);
    if (lane % 4 == 0) states[row] = make_float2(own.maximum[half], denominator);
#pragma unroll
    for (int i = 0; i < Plan::parts * 4; i += 2) {
      const float(&first)[4] = own.sums[i], (&second)[4] = own.sums[i + 1];
      *reinterpret_cast<float4*>(&sums[row][i / 4 * 32 + lane % 4 * 8 + i % 4 * 2]) =
          make_float4(first[half * 2], first[half * 2 + 1], second[half * 2], second[half * 2 + 1]);
    }
  }
}

// The first `count` warps' parts together, written: four columns a thread.
template <class Plan>
__device__ void store_causal(const PagedAttentionRun& run, const CausalUnit& unit, int group,
                             const CausalMemory<Plan>& memory, int count) {
  constexpr int fours = Plan::width / 4;
  for (int i = static_cast<int>(threadIdx.x); i < unit.query_rows * fours; i += Plan::threads) {
    const int row = i / fours, column = i % fours * 4;
    MergedState merged;
    float sum[4] = {};
    for (int part = 0; part < count; ++part) merged.maximum = fmaxf(merged.maximum, memory.states[part][row].x);
    for (int part = 0; part < count; ++part) {
      const float2 state = memory.states[part][row];
      const float weight = exp2f(state.x - merged.base());
      const float4 four = *reinterpret_cast<const float4*>(&memory.sums[part][row][column]);
      merged.denominator += weight * state.y;
      add(sum, weight, Pack<float, 4>{four.x, four.y, four.z, four.w});
    }
    const int64_t at = (unit.first_query + row) * run.groups + group;
    store_merged(run, at * Plan::width + column, merged.denominator > 0 ? 1 / merged.denominator : 0.0f, sum);
    if (column == 0) store_log_sum_exp(run, at, merged);
  }
}

template <class Plan>
__global__ void __launch_bounds__(Plan::threads, 1) attend_causal(const PagedAttentionRun run) {
  extern __shared__ __align__(16) unsigned char causal_memory[];
  auto& memory = *reinterpret_cast<CausalMemory<Plan>*>(causal_memory);
  let_successor_begin();
  const int groups = static_cast<int>(run.groups), group = static_cast<int>(blockIdx.x) % groups;
  const int own_warp = static_cast<int>(threadIdx.x) / warp, lane = static_cast<int>(threadIdx.x) % warp;
  const CausalUnit unit = causal_unit<Plan>(run, static_cast<int>(blockIdx.x) / groups);
  int index = own_warp;
  CausalTile tile = causal_tile<Plan>(run, unit, index, group);
  CausalTile next = causal_tile<Plan>(run, unit, index + Plan::warps, group);
  const CausalReach reach = causal_reach<Plan>(run, unit);
  wait_for_predecessor();
  const bool first_of_group = static_cast<int>(blockIdx.x) < groups;
  if (unit.query_rows <= 0 && !first_of_group) return;
  CausalRows<Plan> queries, keys, values;
  load_causal_queries<Plan>(queries, run, unit, group);
  ask_for_causal_rows<Plan>(keys, tile.keys, tile.rows, run.key_stride);
  ask_for_causal_rows<Plan>(values, tile.values, tile.rows, run.value_stride);
  const float scale = run.scale * 1.4426950408889634f;
  const int sees[2] = {rows_seen(run, unit, reach.all, lane / 4), rows_seen(run, unit, reach.all, lane / 4 + 8)};
  CausalSums<Plan> own;
#pragma unroll 1
  for (; index < reach.tiles; index += Plan::warps) {
    float scores[2][4] = {};
    causal_scores<Plan>(queries, keys, scores);
    ask_for_causal_rows<Plan>(keys, next.keys, next.rows, run.key_stride);
    const int seen[2] = {min(sees[0] - tile.place, tile.rows), min(sees[1] - tile.place, tile.rows)};
    soften_causal<Plan>(scores, seen, scale, own);
    add_causal<Plan>(scores, values, own);
    ask_for_causal_rows<Plan>(values, next.values, next.rows, run.value_stride);
    tile = next;
    next = causal_tile<Plan>(run, unit, index + 2 * Plan::warps, group);
  }
  put_causal<Plan>(own, memory.sums[own_warp], memory.states[own_warp]);
  __syncthreads();
  store_causal<Plan>(run, unit, group, memory, max(min(reach.tiles, Plan::warps), 1));
  if (first_of_group) store_rows_of_no_sequence<Plan>(run, group);
}

}  // namespace cepe::ops::cuda
