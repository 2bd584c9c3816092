// Eight columns of a cached key or value, as a lane reads them at one time: of bfloat16, or of 8 bits with a scale for
// each row and group (ops/int8_rows.h).
#pragma once

#include "ops/cuda/row_values.cuh"
#include "ops/cuda/tensor_core.cuh"

namespace cepe::ops::cuda {

using Int8 = int8_t;

template <class T>
struct CachedEight;

template <>
struct CachedEight<Bfloat16> {
  using Words = uint4;  // the eight as they are in memory
  static constexpr bool scaled = false;
  template <int half>
  __device__ static float4 four(const Words& words) {
    const uint32_t left = half == 0 ? words.x : words.z, right = half == 0 ? words.y : words.w;
    return make_float4(lower(left), upper(left), lower(right), upper(right));
  }
  __device__ static Words load_where(bool there, const Bfloat16* from) { return cuda::load_where(there, from); }
  __device__ static void copy(uint32_t to, const Bfloat16* from, bool there) { copy_16_bytes(to, from, there); }
};

template <>
struct CachedEight<Int8> {
  using Words = uint2;
  static constexpr bool scaled = true;
  // Each byte with its sign turned is the end of the mantissa of 2^23.
  template <int byte>
  __device__ static float value(uint32_t turned) {
    constexpr uint32_t two_to_23 = 0x4b000000;
    return __uint_as_float(__byte_perm(turned, two_to_23, 0x7650 | byte)) - (8388608.0f + 128.0f);
  }
  template <int half>
  __device__ static float4 four(const Words& words) {
    const uint32_t turned = (half == 0 ? words.x : words.y) ^ 0x80808080u;
    return make_float4(value<0>(turned), value<1>(turned), value<2>(turned), value<3>(turned));
  }
  __device__ static Words load_where(bool there, const Int8* from) { return load_two_where(there, from); }
  __device__ static void copy(uint32_t to, const Int8* from, bool there) { copy_8_bytes(to, from, there); }
};

// A head's columns to 8 bits, as int8_rows (ops/int8_rows.h) rounds them: a warp has the head, `count` columns a lane,
// where it has any.
template <int count>
__device__ float scale_of_head(const float (&columns)[count]) {
  uint32_t largest = 0;  // a NaN is larger than all numbers, and makes the scale one
#pragma unroll
  for (const float column : columns) largest = max(largest, __float_as_uint(column) & 0x7fffffffu);
  largest = __reduce_max_sync(0xffffffffu, largest);
  const float scale = __fdiv_rn(__uint_as_float(largest), 127.0f);
  return scale < 1e-30f ? 1e-30f : scale;
}
__device__ inline float rounded_to_8_bits(float column, float scale) {
  return fminf(fmaxf(rintf(__fdiv_rn(column, scale)), -127.0f), 127.0f);
}
__device__ inline uint32_t packed_bytes(const float4& whole) {
  const auto byte = [](float value) { return static_cast<uint32_t>(static_cast<int>(value)) & 0xffu; };
  return byte(whole.x) | byte(whole.y) << 8 | byte(whole.z) << 16 | byte(whole.w) << 24;
}

}  // namespace cepe::ops::cuda
