// Elements of float32 and bfloat16: wide loads and stores, and the roundings between operations.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace cepe::ops::cuda {

using Bfloat16 = __nv_bfloat16;

// `count` elements that are loaded or stored at once: 16 bytes, the widest access of a thread, where pointers and
// sizes allow it, else one element.
template <class T, int count>
struct alignas(count * sizeof(T)) Pack {
  T at[count];
};
template <class T>
inline constexpr int wide = 16 / static_cast<int>(sizeof(T));

template <int count, class T>
__device__ inline Pack<T, count> load(const T* from) {
  return *reinterpret_cast<const Pack<T, count>*>(from);
}
template <int count, class T>
__device__ inline void store(T* to, const Pack<T, count>& values) {
  *reinterpret_cast<Pack<T, count>*>(to) = values;
}

__device__ inline float widened(float value) { return value; }
__device__ inline float widened(Bfloat16 value) { return __bfloat162float(value); }

template <class T>
__device__ inline T narrowed(float value) {
  if constexpr (sizeof(T) == 4) {
    return value;
  } else {
    // Two at a time, even for one: the conversion of one goes to the unit of the exponential, an eighth as fast.
    return __floats2bfloat162_rn(value, 0.0f).x;
  }
}
// The value as it is after a store in T.
template <class T>
__device__ inline float rounded(float value) {
  return widened(narrowed<T>(value));
}

// Both as bfloat16, the first in the lower half.
__device__ inline uint32_t packed_pair(float first, float second) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

inline constexpr unsigned multiprocessors = 132;  // of an H100 or H200

inline bool is_wide_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }
inline unsigned blocks_for(int64_t threads, int64_t block) {
  return static_cast<unsigned>((threads + block - 1) / block);
}

}  // namespace cepe::ops::cuda
