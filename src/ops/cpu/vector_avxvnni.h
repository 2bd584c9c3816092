// Products of fours of bytes (AVX-VNNI, of processors without AVX-512) beside the eight lanes of AVX2. Included only by
// the file compiled for that level.
#pragma once

#include "ops/cpu/vector_avx2.h"

namespace cepe::ops::cpu {

struct VectorAvxVnni : VectorAvx2 {
  static constexpr int byte_rows = 6, byte_columns = 2;  // 12 sums, two columns and a row: 15 of 16 registers
  using Fours = __m256i;

  template <bool is_unsigned>
  static Fours load_fours(const void* from) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(from));
  }
  template <bool is_unsigned>
  static Fours set_four(const void* from) {
    int32_t four;
    __builtin_memcpy(&four, from, sizeof four);
    return _mm256_set1_epi32(four);
  }
  static Int add_fours(Int sum, Fours of_unsigned, Fours of_signed) {
    // As in vector_avx512vnni.h.
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(of_unsigned), "x"(of_signed));
    return sum;
  }
};

}  // namespace cepe::ops::cpu
