// The queries of the latent kernel over states of 8 bits: in 16 bits, as two rows of int8.
#pragma once

#include "ops/cuda/latent_int8_tiles.cuh"
#include "ops/cuda/warp.cuh"

namespace cepe::ops::cuda {

// Of the three warpgroups, which come to it from two places (synccheck takes that for an error; the form of the
// instruction that does not ask for whole warps satisfies it, and costs the kernel 6 % of its time).
__device__ inline void wait_for_readers_of_queries() {
  __syncwarp();
  asm volatile("bar.sync 2, 384;" ::: "memory");
}

// Where the 16 bytes `piece` of row `row` stand among rows that the copy engine, or its like, laid out in atoms: one
// after the other, each of all `rows`, the pieces of a row permuted for the banks' sake.
template <class Plan>
__device__ uint32_t int8_place(int row, int piece, int rows) {
  constexpr int of_atom = Plan::atom / 16;
  const int mixed = of_atom == 8 ? row % 8 : row / 2 % 4;
  return piece / of_atom * rows * Plan::atom + row * Plan::atom + (piece % of_atom ^ mixed) * 16;
}

// Eight neighbours of a query row in bfloat16, and one of them.
__device__ inline uint4 read_eight(const PagedAttentionRun& run, int64_t at) {
  if (run.bfloat16_queries) return *reinterpret_cast<const uint4*>(static_cast<const Bfloat16*>(run.queries) + at);
  const float* from = static_cast<const float*>(run.queries) + at;
  uint32_t pairs[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) pairs[i] = packed_pair(from[i * 2], from[i * 2 + 1]);
  return make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
}
__device__ inline float value_of(const uint4& eight, int at) {
  const uint32_t pairs[4] = {eight.x, eight.y, eight.z, eight.w};
  return __uint_as_float(at % 2 ? pairs[at / 2] & 0xffff0000u : pairs[at / 2] << 16);
}

__device__ inline uint32_t lowest_bytes(const uint32_t* four) {
  return __byte_perm(__byte_perm(four[0], four[1], 0x0040), __byte_perm(four[2], four[3], 0x0040), 0x5410);
}

// A part's queries in shared memory, by all three warpgroups (`own` of their 12 warps), and a scale for each row: a
// value is scale * (high + low / int8_low). Blocks of 64 columns by 64 rows: the high ones, then the low ones. Rows
// beyond the part's are zeros.
inline constexpr float int8_low = 254;

template <class Plan>
__device__ void lay_int8_queries(const PagedAttentionRun& run, const Part& part, const Int8Memory<Plan>& memory,
                                 int own) {
  constexpr int pieces = Plan::width / 8, turns = (pieces + warp - 1) / warp, warps = 3 * group_warps;
  constexpr int rows = (Plan::rows + warps - 1) / warps;  // of a warp; all are asked for at one time
  const int lane = static_cast<int>(threadIdx.x) % warp;
  uint4 read[rows][turns];
#pragma unroll
  for (int i = 0; i < rows; ++i) {
    const int row = own + i * warps;
#pragma unroll
    for (int turn = 0; turn < turns; ++turn) {
      const int piece = turn * warp + lane;
      read[i][turn] = row < part.query_rows && piece < pieces
                          ? read_eight(run, int64_t{part.first_query + row} * Plan::width + piece * 8)
                          : make_uint4(0, 0, 0, 0);
    }
  }
  wait_for_readers_of_queries();
#pragma unroll
  for (int i = 0; i < rows; ++i) {
    const int row = own + i * warps;
    if (row >= Plan::rows) break;
    float largest = 0;
#pragma unroll
    for (int turn = 0; turn < turns; ++turn) {
#pragma unroll
      for (int at = 0; at < 8; ++at) largest = fmaxf(largest, fabsf(value_of(read[i][turn], at)));
    }
    largest = largest_of_warp(largest);
    const float steps = largest > 0 ? 127 / largest : 0;
    if (lane == 0) memory.board().query_scales[row] = largest / 127;
#pragma unroll
    for (int turn = 0; turn < turns; ++turn) {
      const int piece = turn * warp + lane;
      if (piece >= pieces) break;
      // A number of that size, added, leaves the nearest integer in the lowest bits.
      constexpr float integers = 0x1.8p23f;
      uint32_t high[8], low[8];
#pragma unroll
      for (int at = 0; at < 8; ++at) {
        const float exact = value_of(read[i][turn], at) * steps, whole = exact + integers;
        high[at] = __float_as_uint(whole);
        low[at] = __float_as_uint(fmaf(exact - (whole - integers), int8_low, integers));
      }
      const auto store = [&](int at, const uint32_t(&eight)[8]) {
        const uint32_t to = memory.queries() + int8_place<Plan>(at, piece / 2, 2 * Plan::rows) + piece % 2 * 8;
        asm volatile("st.shared.v2.b32 [%0], {%1, %2};" ::"r"(to), "r"(lowest_bytes(eight)),
                     "r"(lowest_bytes(eight + 4))
                     : "memory");
      };
      store(row, high);
      store(Plan::rows + row, low);
    }
  }
  show_to_engines();
  wait_for_readers_of_queries();
}

}  // namespace cepe::ops::cuda
