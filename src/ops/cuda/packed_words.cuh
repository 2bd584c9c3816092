// Packed values to pairs of bfloat16, 32 bits at a time and exactly: what a value's row or block scales it by comes
// later. ops/flat_weight.h tells the order within a row.
#pragma once

#include <cstdint>

#include "ops/packed_format.h"

namespace cepe::ops::cuda {

inline constexpr int chunk_bytes = 64;  // of a row: 16 for each of four neighbouring threads
inline constexpr int block_inputs = 32;
inline constexpr int tile_rows = 16;  // of the weight, for a thread block of a product
template <PackedFormat format>
inline constexpr int chunk_inputs = format == PackedFormat::q4_1 ? 128 : 64;

struct Words {
  uint32_t at[4];
};
// Not by __ldg: x may be what the kernel before still writes when this one begins.
__device__ inline Words words_at(const void* from) {
  const uint4 words = *static_cast<const uint4*>(from);
  return {words.x, words.y, words.z, words.w};
}

// Both elements times a power of two. Subnormal operands count, unlike in a product that flushes them.
__device__ inline uint32_t product_of_pairs(uint32_t pair, uint32_t factors) {
  uint32_t result;
  asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(result) : "r"(pair), "r"(factors));
  return result;
}

// Eight bits a value: bytes 0 and 2 are the first pair, bytes 1 and 3 the second. The pairs hold the values times
// 1 / row_factor.
template <PackedFormat format>
struct EightBits;

// e4m3's exponent and mantissa moved to where bfloat16 has them are the value times 2^-120, its subnormals too.
template <>
struct EightBits<PackedFormat::fp8_row> {
  static constexpr float row_factor = 1;
  __device__ static void unpack(uint32_t word, uint32_t (&pairs)[2]) {
    constexpr uint32_t two_to_120 = 0x7b807b80;
    pairs[0] = product_of_pairs(((word << 8) & 0x80008000u) | ((word << 4) & 0x07f007f0u), two_to_120);
    pairs[1] = product_of_pairs((word & 0x80008000u) | ((word >> 4) & 0x07f007f0u), two_to_120);
  }
};

// A magnitude of seven bits is the mantissa of a subnormal bfloat16, 2^-133 a step. 2^127 is as far as one factor goes.
template <>
struct EightBits<PackedFormat::int8_row> {
  static constexpr float row_factor = 64;
  __device__ static void unpack(uint32_t word, uint32_t (&pairs)[2]) {
    constexpr uint32_t two_to_127 = 0x7f007f00;
    pairs[0] = product_of_pairs(((word << 8) & 0x80008000u) | (word & 0x007f007fu), two_to_127);
    pairs[1] = product_of_pairs((word & 0x80008000u) | ((word >> 8) & 0x007f007fu), two_to_127);
  }
};

// Four bits a value: the four pairs of a word, each value 128 more than it is.
inline constexpr float nibble_excess = 128;
__device__ inline void unpack_nibbles(uint32_t word, uint32_t (&pairs)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) pairs[i] = ((word >> (4 * i)) & 0x000f000fu) | 0x43004300u;
}

__device__ inline float low_of(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float high_of(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

}  // namespace cepe::ops::cuda
