// The queries of the latent kernel for Hopper: where a part begins, from the ring of tiles into registers and shared
// memory.
#pragma once

#include "ops/cuda/latent_tiles.cuh"
#include "ops/cuda/paged_tiles.cuh"
#include "ops/cuda/tensor_core.cuh"

namespace cepe::ops::cuda {

// Of the columns that stay in shared memory, from the ring to where wgmma finds them: the layout is the same.
template <class Plan>
__device__ void lay_queries(const LatentMemory<Plan>& memory, uint32_t brought) {
  const uint32_t from = brought + Plan::held * Plan::rows * 128, to = memory.queries();
  for (uint32_t at = threadIdx.x % (group_warps * warp) * 16; at < Plan::query_bytes; at += group_warps * warp * 16) {
    uint32_t piece[4];
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(piece[0]), "=r"(piece[1]), "=r"(piece[2]), "=r"(piece[3])
                 : "r"(from + at)
                 : "memory");
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to + at), "r"(piece[0]), "r"(piece[1]), "r"(piece[2]),
                 "r"(piece[3])
                 : "memory");
  }
}

// The warpgroup's queries, which a stage of the ring holds, by columns: the first in registers as wgmma takes them, the
// others in shared memory.
template <class Plan>
__device__ void take_queries(const LatentMemory<Plan>& memory, const Turn<Plan::stages>& tile,
                             uint32_t (&held)[Plan::held_steps + 1][4]) {
  const int lane = static_cast<int>(threadIdx.x) % warp, own = static_cast<int>(threadIdx.x) / warp % group_warps;
  const uint32_t brought = memory.tile(tile.stage);
  wait_for(memory.tile_full(tile.stage), tile.parity);
  if constexpr (Plan::laid > 0) {
    wait_for_group();  // its products with the last part's queries are done
    lay_queries<Plan>(memory, brought);
    show_to_engines();
    wait_for_group();
  }
  const int row = own * 16 + lane % 16;
#pragma unroll
  for (int step = 0; step < Plan::held_steps; ++step) {
    if (own * 16 < Plan::rows) {
      load_matrices(held[step],
                    brought + (step / 4 * Plan::rows + row) * 128 + place_of(row, step % 4 * 2 + lane / 16) * 16);
    } else {
#pragma unroll
      for (uint32_t& pair : held[step]) pair = 0;
    }
  }
  __syncwarp();
  if (lane == 0) arrive(memory.tile_free(tile.stage));
}

}  // namespace cepe::ops::cuda
