// The rotation of a pack of pairs, which two kernels share.
#pragma once

#include "ops/cuda/elements.cuh"

namespace cepe::ops::cuda {

inline constexpr int rotary_block = 256;  // threads

// x1, x2 -> y1, y2. The intrinsics keep each product's rounding: no fused multiply-add.
template <class T, int count>
__device__ void rotate_pack(const T* x, T* y, const float* cos, const float* sin, float direction, int64_t half) {
  const Pack<T, count> first = load<count>(x), second = load<count>(x + half);
  Pack<T, count> rotated_first, rotated_second;
#pragma unroll
  for (int i = 0; i < count; ++i) {
    const float c = rounded<T>(cos[i]), s = direction * rounded<T>(sin[i]);
    const float x1 = widened(first.at[i]), x2 = widened(second.at[i]);
    rotated_first.at[i] = narrowed<T>(rounded<T>(__fmul_rn(x1, c)) - rounded<T>(__fmul_rn(x2, s)));
    rotated_second.at[i] = narrowed<T>(rounded<T>(__fmul_rn(x2, c)) + rounded<T>(__fmul_rn(x1, s)));
  }
  store<count>(y, rotated_first);
  store<count>(y + half, rotated_second);
}

}  // namespace cepe::ops::cuda
