// The queries of the latent kernel for Hopper: where a part begins, they come into registers and shared memory.
#pragma once

#include "ops/cuda/latent_tiles.cuh"
#include "ops/cuda/paged_tiles.cuh"

namespace cepe::ops::cuda {

// Two neighbouring elements of a query row as bfloat16.
template <class T>
__device__ uint32_t query_pair_at(const T* from) {
  if constexpr (sizeof(T) == 2) {
    return *reinterpret_cast<const uint32_t*>(from);
  } else {
    const float2 wide = *reinterpret_cast<const float2*>(from);
    const __nv_bfloat162 pair = __floats2bfloat162_rn(wide.x, wide.y);
    return *reinterpret_cast<const uint32_t*>(&pair);
  }
}

// What a thread reads of a block's share of the columns. Rows beyond the part's and columns beyond the width are zeros;
// something is loaded for them too, so that no load waits for a branch.
template <class Plan, class T>
struct QueryReader {
  const T* queries;
  const Part& part;
  int first;  // column of the block's first
  __device__ const T* row_at(int row) const {
    return queries + int64_t{part.first_query + min(row, part.query_rows - 1)} * Plan::width + first;
  }
  __device__ bool has(int row, int block) const {
    return row < part.query_rows && first + block * box_columns < Plan::width;
  }
  __device__ uint32_t pair(const T* row, int column, int block, bool there) const {
    const uint32_t pair = query_pair_at(row + (there ? block * box_columns : 0) + column);
    return there ? pair : 0;
  }
};

// A warp's rows of the columns that lie in shared memory, in the layout of matrix_at: eight lanes a row.
template <class Plan, class T>
__device__ void lay_queries(const QueryReader<Plan, T>& reader, const LatentMemory<Plan>& memory) {
  const int lane = static_cast<int>(threadIdx.x) % warp, own = static_cast<int>(threadIdx.x) / warp % group_warps;
  if (own * 16 >= Plan::rows) return;
#pragma unroll
  for (int block = 0; block < Plan::laid; ++block) {
    uint32_t pairs[4][4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = own * 16 + i * 4 + lane / 8;
      const bool there = reader.has(row, Plan::held + block);
#pragma unroll
      for (int pair = 0; pair < 4; ++pair) {
        pairs[i][pair] = reader.pair(reader.row_at(row), lane % 8 * 8 + pair * 2, Plan::held + block, there);
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = own * 16 + i * 4 + lane / 8;
      const uint32_t to = memory.queries() + (block * Plan::rows + row) * 128 + place_of(row, lane % 8) * 16;
      asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(pairs[i][0]), "r"(pairs[i][1]),
                   "r"(pairs[i][2]), "r"(pairs[i][3])
                   : "memory");
    }
  }
}

// The warpgroup's queries, by columns: the first in registers as wgmma takes them, the others in shared memory.
template <class Plan, class T>
__device__ void read_queries(const T* queries, const Part& part, const LatentMemory<Plan>& memory, uint32_t rank,
                             uint32_t (&held)[Plan::held_steps][4]) {
  const int lane = static_cast<int>(threadIdx.x) % warp, own = static_cast<int>(threadIdx.x) / warp % group_warps;
  const QueryReader<Plan, T> reader = {queries, part, static_cast<int>(rank) * Plan::columns};
  if constexpr (Plan::laid > 0) {
    wait_for_group();  // its products with the last part's queries are done
    lay_queries<Plan, T>(reader, memory);
    show_to_engines();
    wait_for_group();
  }
  const int upper_row = own * 16 + lane / 4, lower_row = upper_row + 8, within = lane % 4 * 2;
  const T *upper = reader.row_at(upper_row) + within, *lower = reader.row_at(lower_row) + within;
#pragma unroll
  for (int step = 0; step < Plan::held_steps; ++step) {
    const int block = step / 4;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int column = step % 4 * 16 + i / 2 * 8;
      held[step][i] = i % 2 == 0 ? reader.pair(upper, column, block, reader.has(upper_row, block))
                                 : reader.pair(lower, column, block, reader.has(lower_row, block));
    }
  }
}

}  // namespace cepe::ops::cuda
