// Between the two products of the latent kernel for Hopper: a tile's scores become probabilities. Where two blocks
// share the columns, each has the sums of its own: of a warp's sixteen query rows block 0 takes the upper eight and
// block 1 the lower eight, is sent the other's sums for them, and gives back the probabilities.
#pragma once

#include "ops/cuda/approximate.cuh"
#include "ops/cuda/latent_tiles.cuh"
#include "ops/cuda/paged_tiles.cuh"

namespace cepe::ops::cuda {

// A running maximum is raised only where it would be passed by this much: exp2 of it is no harm in bfloat16, and the
// sums are seldom scaled.
inline constexpr float latent_slack = 8;

// What a thread keeps of a query row: in base 2, the scale included.
struct RowState {
  float maximum = -INFINITY, denominator = 0;
};

// A thread's sixteen scores of a row, pairs of neighbours eight columns apart: those beyond a tile's `rows` count for
// nothing.
__device__ inline void hide_scores(float (&scores)[16], int rows) {
  const int left = rows - static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    if (i / 2 * 8 + i % 2 >= left) scores[i] = -INFINITY;
  }
}

// Such scores -> pairs of probabilities; gives the factor of what was summed before. Without branches: the chain of
// latencies is what takes time.
__device__ inline float soften(const float (&scores)[16], float scale, RowState& state, uint32_t (&pairs)[8]) {
  float highest = scores[0];
#pragma unroll
  for (int i = 1; i < 16; ++i) highest = fmaxf(highest, scores[i]);
  highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 1));
  highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 2)) * scale;
  const bool raised = highest > state.maximum + latent_slack;
  const float factor = raised ? power_of_two(state.maximum - highest) : 1;
  if (raised) state.maximum = highest;
  const float base = state.maximum == -INFINITY ? 0.0f : state.maximum;
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float first = power_of_two(scores[i * 2] * scale - base);
    const float second = power_of_two(scores[i * 2 + 1] * scale - base);
    sum += first + second;
    pairs[i] = packed_pair(first, second);
  }
  state.denominator = state.denominator * factor + sum;
  return factor;
}

// Of a tile's scores, as wgmma leaves them, those of the upper or the lower row.
__device__ inline void take_half(const float (&scores)[32], bool lower, float (&half)[16]) {
#pragma unroll
  for (int i = 0; i < 16; ++i) half[i] = lower ? scores[i / 2 * 4 + 2 + i % 2] : scores[i / 2 * 4 + i % 2];
}

// Sends the other block the scores of its rows, and adds what it sends for this one's.
template <class Plan>
__device__ void exchange_scores(const LatentMemory<Plan>& memory, uint32_t rank, uint32_t parity,
                                const float (&scores)[32], float (&mine)[16]) {
  const int lane = static_cast<int>(threadIdx.x) % warp, own = static_cast<int>(threadIdx.x) / warp % group_warps;
  const uint32_t other = rank ^ 1, full = memory.partner_full(own), free = memory.partner_free(own);
  const uint32_t full_there = place_in(full, other), place = memory.partner(own, lane), there = place_in(place, other);
  if (lane == 0) arrive_and_expect(full, warp * sizeof(mine));
  take_half(scores, other == 1, mine);
  wait_for(free, parity ^ 1);  // the other block's warp has added what it was sent before
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    send(there + i * Plan::partner_step, make_float4(mine[i * 4], mine[i * 4 + 1], mine[i * 4 + 2], mine[i * 4 + 3]),
         full_there);
  }
  take_half(scores, rank == 1, mine);
  wait_for(full, parity);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float4 more = load_four(place + i * Plan::partner_step);
    mine[i * 4] += more.x;
    mine[i * 4 + 1] += more.y;
    mine[i * 4 + 2] += more.z;
    mine[i * 4 + 3] += more.w;
  }
  __syncwarp();
  if (lane == 0) arrive_there(place_in(free, other));
}

// Bytes that another block's warp sends here with send_probabilities.
inline constexpr uint32_t sent_probability_bytes = 8 * (128 + 4);

// A warp's probabilities of eight rows, the upper or the lower ones, into the layout that wgmma reads, and the factors
// of these rows.
template <class Plan>
__device__ void lay_probabilities(const LatentMemory<Plan>& memory, uint32_t buffer, int half,
                                  const uint32_t (&pairs)[8], float factor) {
  const int lane = static_cast<int>(threadIdx.x) % warp, own = static_cast<int>(threadIdx.x) / warp % group_warps;
  const int row = own * 16 + half * 8;
  const uint32_t first = memory.probabilities(buffer) + row * 128 + lane % 8 * 128 + place_of(lane, lane / 8) * 16;
  store_matrices(first, pairs[0], pairs[1], pairs[2], pairs[3]);
  store_matrices(first ^ 64, pairs[4], pairs[5], pairs[6], pairs[7]);
  if (lane % 4 == 0) memory.board().factors[buffer][row + lane / 4] = factor;
}

// What the warp laid there, to the other block, 16 bytes a lane: the network between blocks counts pieces, not bytes.
// All is read before the first is sent, whose registers are not free before it has left.
template <class Plan>
__device__ void send_probabilities(const LatentMemory<Plan>& memory, uint32_t rank, uint32_t buffer, float factor) {
  const int lane = static_cast<int>(threadIdx.x) % warp, own = static_cast<int>(threadIdx.x) / warp % group_warps;
  const int row = own * 16 + static_cast<int>(rank) * 8;
  const uint32_t other = rank ^ 1, full_there = place_in(memory.probabilities_full(buffer), other);
  const uint32_t piece = memory.probabilities(buffer) + row * 128 + lane * 16;
  const float4 upper = load_four(piece), lower = load_four(piece + warp * 16);
  send(place_in(piece, other), upper, full_there);
  send(place_in(piece + warp * 16, other), lower, full_there);
  if (lane % 4 != 0) return;
  send(place_in(memory.factor(buffer, row + lane / 4), other), __float_as_uint(factor), full_there);
}

}  // namespace cepe::ops::cuda
