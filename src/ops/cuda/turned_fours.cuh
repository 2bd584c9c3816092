// Heads turned by a warp, four neighbouring columns a lane at a time, and how a cache takes them.
#pragma once

#include "ops/cuda/cached_eight.cuh"
#include "ops/cuda/kernels.h"

namespace cepe::ops::cuda {

// Four neighbouring columns of a head, and the four that they are turned with.
struct AskedFour {
  uint2 own, pair;
};

__device__ inline AskedFour ask_for_four(bool there, const Bfloat16* head, int column, int half) {
  return {load_two_where(there, head + column),
          load_two_where(there, head + (column < half ? column + half : column - half))};
}

struct FourAngles {
  float4 cos, sin;
};

// Of columns that are turned; of others anything.
__device__ inline FourAngles angles_of(const RotaryCacheRows& tokens, int sequence, int column) {
  const auto half = static_cast<int>(tokens.half);
  if (column >= 2 * half) return {};
  const int64_t at = int64_t{sequence} * half + (column < half ? column : column - half);
  return {*reinterpret_cast<const float4*>(tokens.cos + at), *reinterpret_cast<const float4*>(tokens.sin + at)};
}

// As rotate_pack (rotary.cuh) rounds.
__device__ inline float turned(float own, float pair, float cos, float sin) {
  return rounded<Bfloat16>(rounded<Bfloat16>(__fmul_rn(own, rounded<Bfloat16>(cos))) +
                           rounded<Bfloat16>(__fmul_rn(pair, rounded<Bfloat16>(sin))));
}

__device__ inline float4 four_of(const uint2& words) {
  return make_float4(lower(words.x), upper(words.x), lower(words.y), upper(words.y));
}

__device__ inline float4 turned(const AskedFour& asked, const FourAngles& angles, int column, int half) {
  const float4 own = four_of(asked.own), pair = four_of(asked.pair);
  if (column >= 2 * half) return own;
  const float direction = column < half ? -1.0f : 1.0f;
  return make_float4(turned(own.x, pair.x, angles.cos.x, direction * angles.sin.x),
                     turned(own.y, pair.y, angles.cos.y, direction * angles.sin.y),
                     turned(own.z, pair.z, angles.cos.z, direction * angles.sin.z),
                     turned(own.w, pair.w, angles.cos.w, direction * angles.sin.w));
}

__device__ inline uint2 packed_four(const float4& four) {
  return make_uint2(packed_pair(four.x, four.y), packed_pair(four.z, four.w));
}

// Of a head: `count` fours of each lane of a warp, which become as they are read from the cache, and the scale that
// goes with them. Every lane calls it.
template <class Element, int count>
__device__ float as_cached(float4 (&fours)[count]) {
  if constexpr (CachedEight<Element>::scaled) {
    float columns[count * 4];
#pragma unroll
    for (int i = 0; i < count; ++i) {
      columns[4 * i] = fours[i].x;
      columns[4 * i + 1] = fours[i].y;
      columns[4 * i + 2] = fours[i].z;
      columns[4 * i + 3] = fours[i].w;
    }
    const float scale = scale_of_head(columns);
#pragma unroll
    for (float4& four : fours)
      four = make_float4(rounded_to_8_bits(four.x, scale), rounded_to_8_bits(four.y, scale),
                         rounded_to_8_bits(four.z, scale), rounded_to_8_bits(four.w, scale));
    return scale;
  } else {
    return 1;
  }
}

// Where a group's head of a slot lies in a cache.
template <class Element>
struct CachedHead {
  Element* columns;
  float* scale;

  __device__ CachedHead(void* cache, const RotaryCacheRows& tokens, int64_t slot, int group) {
    auto* row = static_cast<Element*>(cache) + slot * tokens.cache_row;
    columns = row + group * tokens.width;
    scale = reinterpret_cast<float*>(row + tokens.groups * tokens.width) + group;
  }
  __device__ void store(int column, const float4& four) const {
    if constexpr (CachedEight<Element>::scaled) {
      *reinterpret_cast<uint32_t*>(columns + column) = packed_bytes(four);
    } else {
      *reinterpret_cast<uint2*>(columns + column) = packed_four(four);
    }
  }
  __device__ void store_scale(float value) const {
    if constexpr (CachedEight<Element>::scaled) *scale = value;
  }
};

}  // namespace cepe::ops::cuda
