// Sums over a warp.
#pragma once

namespace cepe::ops::cuda {

inline constexpr int warp = 32;

// Every lane calls it, every lane gets the sum.
__device__ inline float sum_of_warp(float value) {
  for (int other = warp / 2; other > 0; other /= 2) value += __shfl_xor_sync(0xffffffffu, value, other);
  return value;
}

__device__ inline float largest_of_warp(float value) {
  for (int other = warp / 2; other > 0; other /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, other));
  return value;
}

}  // namespace cepe::ops::cuda
