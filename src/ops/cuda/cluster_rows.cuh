// What kernels share in which a cluster of up to eight thread blocks has a whole sequence and group of cached keys and
// values (paged_cluster.cuh, token_attention.cuh): its parts meet in the cluster's shared memory, and nothing is left
// to merge. Tiles go from memory to registers: with one to four query rows a row of keys is used by the lanes that
// loaded it alone, so shared memory would save nothing and cost barriers. A warp has its own tiles and its own running
// maximum; warps meet once, at the end.
#pragma once

#include "ops/cuda/barrier.cuh"
#include "ops/cuda/cached_eight.cuh"
#include "ops/cuda/merge_parts.cuh"

namespace cepe::ops::cuda {

inline constexpr int most_cluster_blocks = 8;  // what any device with clusters takes
inline constexpr int most_cluster_rows = 4;    // of queries

// Element: of cached rows. rows: of queries.
template <class Element_, int width_, int rows_, int warps_ = 8>
struct ClusterPlan {
  using Element = Element_;
  using Cached = CachedEight<Element>;
  using Words = typename Cached::Words;
  static constexpr int width = width_, rows = rows_, warps = warps_, threads = warps * warp;
  static constexpr int resident = 8 / warps * (rows <= 2 ? 2 : 1);
  static constexpr int lanes = width / 8;  // of a cached row
  static constexpr int slots = warp / lanes, loads = 8, tile = loads * slots;
  static constexpr int holders = lanes / loads;                          // lanes that have the same score
  static constexpr int row_fours = width / 4, fours = rows * row_fours;  // of the sums
  static constexpr int query_turns = (fours + warp - 1) / warp;
  static constexpr int line = 128 / static_cast<int>(sizeof(Element));  // elements of the second-level cache's
  static constexpr int row_lines = (width + line - 1) / line;           // of a cached row
  static_assert(warp % lanes == 0 && fours <= threads && tile * row_lines <= warp);
  // The lane's own row of a tile: that of its load number lane % lanes / holders.
  __device__ static int own_row() {
    const int lane = static_cast<int>(threadIdx.x) % warp;
    return lane / lanes + lane % lanes / holders * slots;
  }
};

// What a cluster has: one sequence and group. first_query: among the query rows or heads as its kernel counts them.
struct ClusterUnit {
  int sequence, group, first_query, query_rows, first_page;
  int tiles, tiles_per_page;
  __device__ int pages() const {
    return static_cast<int>(static_cast<unsigned>(tiles) / static_cast<unsigned>(tiles_per_page));
  }
};

// A warp's tile as the tables have it: nothing is computed from what is read until it is needed, so that nothing waits
// for it before.
struct TableTile {
  int64_t keys, values;                                      // addresses of the page
  int page_rows, first;                                      // rows of the page, and the first of the tile
  __device__ int rows() const { return page_rows - first; }  // more than a tile has, or fewer than none: no matter
};

// without_last: the last row of the last page is not looked at.
template <class Plan, bool without_last = false>
__device__ TableTile table_tile(const PagedAttentionRun& run, const ClusterUnit& unit, int index) {
  constexpr int beyond_any = 1 << 30;
  const int within = static_cast<int>(static_cast<unsigned>(index) / static_cast<unsigned>(unit.tiles_per_page));
  const int page = min(unit.first_page + within, static_cast<int>(run.pages) - 1);
  const int first = index < unit.tiles ? (index - within * unit.tiles_per_page) * Plan::tile : beyond_any;
  const int hidden = within == unit.pages() - 1 ? without_last : 0;
  return {run.keys[page], run.values[page], run.rows[page] - hidden, first};
}

// From an address of a page to a row of the unit's group.
template <class Plan>
__device__ const typename Plan::Element* row_of_page(int64_t page, int row, int64_t stride, int group) {
  return reinterpret_cast<const typename Plan::Element*>(page) + row * stride + group * Plan::width;
}

// Where the scale of the group's part of a row in 8 bits stands.
template <class Plan>
__device__ const float* scale_of_row(int64_t page, int row, int64_t stride, int groups, int group) {
  return reinterpret_cast<const float*>(page + row * stride + groups * Plan::width) + group;
}

// A lane's columns of every slots-th row of a tile, of its keys or of its values; and the scale of its own row.
template <class Plan>
struct TileRows {
  typename Plan::Words words[Plan::loads];
  float scale = 1;
};

template <class Plan>
__device__ void ask_for_rows(TileRows<Plan>& to, int64_t page, const TableTile& tile, int64_t stride, int groups,
                             int group) {
  const int lane = static_cast<int>(threadIdx.x) % warp, slot = lane / Plan::lanes;
  const auto* from = row_of_page<Plan>(page, tile.first + slot, stride, group) + lane % Plan::lanes * 8;
#pragma unroll
  for (int i = 0; i < Plan::loads; ++i) {
    to.words[i] = Plan::Cached::load_where(slot + i * Plan::slots < tile.rows(), from);
    from += Plan::slots * stride;
  }
  if constexpr (Plan::Cached::scaled) {
    const int own = Plan::own_row();
    to.scale = load_one_where(own < tile.rows(), scale_of_row<Plan>(page, tile.first + own, stride, groups, group));
  }
}

// Of a warp, over its tiles. The maximum is the same in all lanes; the denominator is over the scores that a lane has,
// the sums over the rows that it loaded.
template <class Plan>
struct WarpSums {
  float sums[Plan::rows][8] = {};
  float maximum[Plan::rows], denominator[Plan::rows] = {};
};

// Each lane's shares of the scores of its loads -> the whole score of one: the lanes of a cached row halve what they
// have, and swap it, until one is left to each, or to as many as have the same one.
template <class Plan>
__device__ float whole_score(float (&shares)[Plan::loads]) {
  const int lane = static_cast<int>(threadIdx.x) % warp;
  int other = Plan::lanes / 2;
#pragma unroll
  for (int count = Plan::loads / 2; count > 0; count /= 2, other /= 2) {
    const bool later = (lane & other) != 0;
#pragma unroll
    for (int i = 0; i < count; ++i) {
      const float kept = later ? shares[i + count] : shares[i], given = later ? shares[i] : shares[i + count];
      shares[i] = kept + __shfl_xor_sync(0xffffffffu, given, other);
    }
  }
#pragma unroll
  for (; other > 0; other /= 2) shares[0] += __shfl_xor_sync(0xffffffffu, shares[0], other);
  return shares[0];
}

template <class Plan, int half>
__device__ void multiply_half(const float4 (&queries)[Plan::fours], const TileRows<Plan>& keys,
                              float (&shares)[Plan::rows][Plan::loads]) {
  const float4* first = queries + static_cast<int>(threadIdx.x) % Plan::lanes * 2;
  float4 query[Plan::rows];
#pragma unroll
  for (int row = 0; row < Plan::rows; ++row) query[row] = first[row * Plan::row_fours + half];
#pragma unroll
  for (int i = 0; i < Plan::loads; ++i) {
    const float4 key = Plan::Cached::template four<half>(keys.words[i]);
#pragma unroll
    for (int row = 0; row < Plan::rows; ++row) {
      float& share = shares[row][i];
      share = fmaf(key.x, query[row].x, half == 0 ? 0.0f : share);
      share = fmaf(key.y, query[row].y, share);
      share = fmaf(key.z, query[row].z, share);
      share = fmaf(key.w, query[row].w, share);
    }
  }
}

// Products over the lane's own columns.
template <class Plan>
__device__ void multiply_keys(const float4 (&queries)[Plan::fours], const TileRows<Plan>& keys,
                              float (&shares)[Plan::rows][Plan::loads]) {
  multiply_half<Plan, 0>(queries, keys, shares);
  multiply_half<Plan, 1>(queries, keys, shares);
}

// Shares of scores -> the probability of the lane's own row times the scale of its values; what was summed before is
// scaled where a maximum has risen.
template <class Plan>
__device__ void soften_tile(float (&shares)[Plan::rows][Plan::loads], int rows, float key_scale, float value_scale,
                            WarpSums<Plan>& own, float (&weights)[Plan::rows]) {
  const bool there = Plan::own_row() < rows;
#pragma unroll
  for (int row = 0; row < Plan::rows; ++row) {
    const float whole = whole_score<Plan>(shares[row]) * key_scale, score = there ? whole : -INFINITY;
    float highest = score;
#pragma unroll
    for (int other = Plan::holders; other < warp; other *= 2) {
      highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, other));
    }
    highest = fmaxf(highest, own.maximum[row]);
    const float base = highest == -INFINITY ? 0.0f : highest;
    const float factor = exp2f(own.maximum[row] - base);
    own.maximum[row] = highest;
    const float probability = exp2f(score - base);
    own.denominator[row] = own.denominator[row] * factor + probability;
    weights[row] = probability * value_scale;
#pragma unroll
    for (int i = 0; i < 8; ++i) own.sums[row][i] *= factor;
  }
}

template <class Plan>
__device__ void add_values(const float (&weights)[Plan::rows], const TileRows<Plan>& values, WarpSums<Plan>& own) {
#pragma unroll
  for (int i = 0; i < Plan::loads; ++i) {
    const float4 first = Plan::Cached::template four<0>(values.words[i]);
    const float4 second = Plan::Cached::template four<1>(values.words[i]);
#pragma unroll
    for (int row = 0; row < Plan::rows; ++row) {
      const float weight = __shfl_sync(0xffffffffu, weights[row], i * Plan::holders, Plan::lanes);
      float(&sums)[8] = own.sums[row];
      sums[0] = fmaf(first.x, weight, sums[0]);
      sums[1] = fmaf(first.y, weight, sums[1]);
      sums[2] = fmaf(first.z, weight, sums[2]);
      sums[3] = fmaf(first.w, weight, sums[3]);
      sums[4] = fmaf(second.x, weight, sums[4]);
      sums[5] = fmaf(second.y, weight, sums[5]);
      sums[6] = fmaf(second.z, weight, sums[6]);
      sums[7] = fmaf(second.w, weight, sums[7]);
    }
  }
}

// Where the warps of a block meet, then the blocks of a cluster: sums not yet divided, (maximum, denominator).
template <class Plan>
struct ClusterMemory {
  float4 warp_sums[Plan::warps][Plan::fours], block_sums[Plan::fours];
  float2 warp_states[Plan::warps][Plan::rows], block_states[Plan::rows];
  ClusterUnit unit;  // what is wanted of it at the end
};

template <class Plan>
__device__ void store_warp(WarpSums<Plan>& own, float4 (&sums)[Plan::fours], float2 (&states)[Plan::rows]) {
  const int lane = static_cast<int>(threadIdx.x) % warp;
#pragma unroll
  for (int row = 0; row < Plan::rows; ++row) {
    float* mine = own.sums[row];
    const float denominator = sum_of_warp(own.denominator[row]) / Plan::holders;
#pragma unroll
    for (int other = Plan::lanes; other < warp; other *= 2) {
#pragma unroll
      for (int i = 0; i < 8; ++i) mine[i] += __shfl_xor_sync(0xffffffffu, mine[i], other);
    }
    if (lane < Plan::lanes) {
      float4* to = sums + row * Plan::row_fours + lane * 2;
      to[0] = make_float4(mine[0], mine[1], mine[2], mine[3]);
      to[1] = make_float4(mine[4], mine[5], mine[6], mine[7]);
    }
    if (lane == 0) states[row] = make_float2(own.maximum[row], denominator);
  }
}

// Four columns of a query row: `count` parts become one.
template <int count>
__device__ MergedState merge_fours(const float2 (&states)[count], const float4 (&parts)[count], float (&sum)[4]) {
  MergedState merged;
#pragma unroll
  for (int i = 0; i < count; ++i) merged.maximum = fmaxf(merged.maximum, states[i].x);
#pragma unroll
  for (int i = 0; i < count; ++i) {
    const float weight = exp2f(states[i].x - merged.base());
    merged.denominator += weight * states[i].y;
    add(sum, weight, Pack<float, 4>{parts[i].x, parts[i].y, parts[i].z, parts[i].w});
  }
  return merged;
}

// The block's warps become one; four columns a thread.
template <class Plan>
__device__ void merge_warps_of_block(ClusterMemory<Plan>& memory) {
  const int four = static_cast<int>(threadIdx.x), row = four / Plan::row_fours;
  if (four >= Plan::fours) return;
  float2 states[Plan::warps];
  float4 parts[Plan::warps];
#pragma unroll
  for (int i = 0; i < Plan::warps; ++i) {
    states[i] = memory.warp_states[i][row];
    parts[i] = memory.warp_sums[i][four];
  }
  float sum[4] = {};
  const MergedState merged = merge_fours(states, parts, sum);
  memory.block_sums[four] = make_float4(sum[0], sum[1], sum[2], sum[3]);
  if (four % Plan::row_fours == 0) memory.block_states[row] = make_float2(merged.maximum, merged.denominator);
}

// The cluster's blocks, all asked at one time.
template <class Plan>
__device__ MergedState merge_blocks(ClusterMemory<Plan>& memory, int blocks, float (&sum)[4]) {
  const int four = static_cast<int>(threadIdx.x);
  const uint32_t part = shared_address(&memory.block_sums[four]);
  const uint32_t state = shared_address(&memory.block_states[four / Plan::row_fours]);
  float2 states[most_cluster_blocks];
  float4 parts[most_cluster_blocks];
#pragma unroll
  for (int i = 0; i < most_cluster_blocks; ++i) {
    states[i] = make_float2(-INFINITY, 0);
    parts[i] = make_float4(0, 0, 0, 0);
    if (i >= blocks) continue;
    states[i] = read_two(place_in(state, i));
    parts[i] = read_four(place_in(part, i));
  }
  return merge_fours(states, parts, sum);
}

// What warps found becomes the cluster's. The first block's threads call `write` each with its query row, four columns
// of it, their sum and the row's state; the others leave once it has read them. Every thread of the cluster calls it.
template <class Plan, class Write>
__device__ void meet_in_cluster(ClusterMemory<Plan>& memory, WarpSums<Plan>& own, const Write& write) {
  const int warp_of_block = static_cast<int>(threadIdx.x) / warp;
  __syncwarp();
  store_warp<Plan>(own, memory.warp_sums[warp_of_block], memory.warp_states[warp_of_block]);
  __syncthreads();
  merge_warps_of_block<Plan>(memory);
  arrive_at_cluster();
  wait_for_cluster();
  const int four = static_cast<int>(threadIdx.x), row = four / Plan::row_fours;
  const bool writes = rank_in_cluster() == 0 && four < Plan::fours && row < memory.unit.query_rows;
  float sum[4] = {};
  MergedState merged;
  if (writes) merged = merge_blocks<Plan>(memory, static_cast<int>(blocks_in_cluster()), sum);
  arrive_at_cluster();
  if (writes) {
    const float share = merged.denominator > 0 ? 1 / merged.denominator : 0.0f;
    write(row, four % Plan::row_fours, share, sum, merged);
  }
}

}  // namespace cepe::ops::cuda
