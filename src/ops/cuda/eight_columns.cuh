// From what the tensor cores leave with four lanes to 16 bytes a lane.
#pragma once

#include "ops/cuda/elements.cuh"

namespace cepe::ops::cuda {

// Of four neighbouring eights of columns of a row, whose pairs stand with four lanes: one eight for each lane, as
// bfloat16. `sums` is what wgmma leaves of the first of them: the next stand four further.
__device__ inline uint4 eight_columns(const float* sums) {
  uint32_t pairs[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) pairs[i] = packed_pair(sums[i * 4], sums[i * 4 + 1]);
  const bool odd = threadIdx.x % 2 == 1, upper = threadIdx.x % 4 >= 2;
  uint32_t twos[2][2];  // of the first two eights, of the last two: the one that is this lane's, by two lanes
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t kept = odd ? pairs[i * 2 + 1] : pairs[i * 2];
    const uint32_t got = __shfl_xor_sync(0xffffffffu, odd ? pairs[i * 2] : pairs[i * 2 + 1], 1);
    twos[i][0] = odd ? got : kept;
    twos[i][1] = odd ? kept : got;
  }
  const uint32_t got_0 = __shfl_xor_sync(0xffffffffu, upper ? twos[0][0] : twos[1][0], 2);
  const uint32_t got_1 = __shfl_xor_sync(0xffffffffu, upper ? twos[0][1] : twos[1][1], 2);
  return upper ? make_uint4(got_0, got_1, twos[1][0], twos[1][1]) : make_uint4(twos[0][0], twos[0][1], got_0, got_1);
}

}  // namespace cepe::ops::cuda
