// Parts of a latent attention merged, and each head's row times its matrix (ops/head_product.h), in one kernel for the
// few rows of a decode step (Hopper).
// Bound: the bytes of the parts and of the weight, 4 and 8 MB of a 7B layer over 131,072 rows: 3 us of memory, less of
// the second-level cache. In practice its beginning and its end, of which two kernels have twice as many: 7.6 us
// instead of 8.9. Design: a cluster of blocks has a row. Each merges a quarter of its columns as merge_in_common does
// (merge_parts.cuh), sends them to all, and takes a quarter of the head's outputs, whose rows of the weight it asks for
// before the parts are there. Rounded and added up as by the two kernels: the same bits.
#pragma once

#include "ops/cuda/barrier.cuh"
#include "ops/cuda/hopper_launch.h"
#include "ops/cuda/merge_parts.cuh"
#include "ops/cuda/row_values.cuh"

namespace cepe::ops::cuda {

struct Heads {
  static constexpr int width = 1024, columns = merge_columns<Bfloat16>, cluster = width / columns;
  static constexpr int warps = 8, at_once = 9;                           // parts that a warp asks for at one time
  static constexpr int row_packs = width / 8, packs = row_packs / warp;  // of a row of the weight, and of a lane
  static constexpr int most_width = 128, outputs = most_width / cluster / warps;  // of a warp
};

// 8 bytes to the shared memory of any block of the cluster; seen there after a barrier of the cluster.
__device__ inline void put_two(uint32_t to, uint32_t first, uint32_t second) {
  asm volatile("st.shared::cluster.v2.u32 [%0], {%1, %2};" ::"r"(to), "r"(first), "r"(second) : "memory");
}

template <class Plan>
__global__ void __launch_bounds__(Plan::warps* warp)
    merge_into_heads(const PagedAttentionRun run, const Cut cut, const Bfloat16* all_sums, const float2* all_states,
                     int blocks) {
  __shared__ Pack<float, 4> partial[Plan::warps][Plan::columns / 4];
  __shared__ MergedState of_warps[Plan::warps];
  __shared__ __align__(16) Bfloat16 row[Plan::width];
  arrive_at_cluster();
  const int lane = static_cast<int>(threadIdx.x) % warp, own = static_cast<int>(threadIdx.x) / warp;
  const int rank = static_cast<int>(rank_in_cluster()), at = static_cast<int>(blockIdx.x) / Plan::cluster;
  const int head = at % static_cast<int>(run.heads), group = head / static_cast<int>(run.heads / run.head_groups);
  const int head_width = static_cast<int>(run.head_width), share = (head_width + Plan::cluster - 1) / Plan::cluster;
  const int first_output = rank * share, outputs = min(share, head_width - first_output);
  const uint4* weight =
      static_cast<const uint4*>(run.head_weight) + (int64_t{group} * head_width + first_output) * Plan::row_packs;
  uint4 loaded[Plan::outputs][Plan::packs];
#pragma unroll
  for (int i = 0; i < Plan::outputs; ++i) {
    const int output = own + i * Plan::warps;
#pragma unroll
    for (int k = 0; k < Plan::packs; ++k) {
      loaded[i][k] =
          output < outputs ? load_once(weight + output * Plan::row_packs + k * warp + lane) : make_uint4(0, 0, 0, 0);
    }
  }
  const Slots slots = slots_of(run, cut, at, 0, blocks);
  RowParts<Bfloat16> parts = parts_of(slots, cut, Plan::width, all_sums, all_states);
  const int first_column = rank * Plan::columns;
  parts.sums += first_column + lane * 8;
  let_successor_begin();
  wait_for_predecessor();
  float sum[8] = {};
  const MergedState state = merge_slots<Plan::at_once>(parts, own, Plan::warps, sum);
  partial[own][lane * 2] = {{sum[0], sum[1], sum[2], sum[3]}};
  partial[own][lane * 2 + 1] = {{sum[4], sum[5], sum[6], sum[7]}};
  if (lane == 0) of_warps[own] = state;
  __syncthreads();
  wait_for_cluster();  // all have begun
  const int four = static_cast<int>(threadIdx.x);
  if (four < Plan::columns / 4) {
    const auto [merged, total] = merged_four(partial, of_warps, four);
    if (rank == 0 && four == 0) store_log_sum_exp(run, at, merged);
    const float part = merged.denominator > 0 ? 1 / merged.denominator : 0.0f;
    const uint32_t first = packed_pair(total.at[0] * part, total.at[1] * part),
                   second = packed_pair(total.at[2] * part, total.at[3] * part);
    const uint32_t to = shared_address(row + first_column + four * 4);
#pragma unroll
    for (int block = 0; block < Plan::cluster; ++block)
      put_two(place_in(to, static_cast<uint32_t>(block)), first, second);
  }
  arrive_at_cluster();
  wait_for_cluster();
  const uint4* x = reinterpret_cast<const uint4*>(row);
#pragma unroll
  for (int i = 0; i < Plan::outputs; ++i) {
    const int output = own + i * Plan::warps;
    float product = 0;
#pragma unroll
    for (int k = 0; k < Plan::packs; ++k) add_products(product, loaded[i][k], x[k * warp + lane]);
    product = sum_of_warp(product);
    if (lane == 0 && output < outputs)
      static_cast<Bfloat16*>(run.output)[int64_t{at} * head_width + first_output + output] =
          __float2bfloat16_rn(product);
  }
}

// Whether it takes what comes after the parts' kernel. Of 132 parts, which kernels without clusters leave, two kernels
// are as fast.
inline bool merges_into_heads(const PagedAttentionRun& run) {
  return run.head_weight && run.groups == 1 && run.bfloat16_output && run.heads % run.head_groups == 0 &&
         run.head_width <= Heads::most_width && run.query_rows % run.heads == 0 && run.query_rows <= 2 * run.heads &&
         run.width == Heads::width && !run.int8_pages;
}

inline cudaError_t launch_merge_into_heads(const PagedAttentionRun& run, const Cut& cut, const Bfloat16* sums,
                                           const float2* states, int blocks, cudaStream_t stream) {
  HopperAttributes attributes;
  const cudaLaunchConfig_t config = hopper_configuration({Heads::cluster, Heads::warps * warp, 0},
                                                         static_cast<int>(run.query_rows), attributes, stream);
  return cudaLaunchKernelEx(&config, merge_into_heads<Heads>, run, cut, sums, states, blocks);
}

}  // namespace cepe::ops::cuda
