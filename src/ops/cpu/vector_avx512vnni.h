// Products of fours of bytes (AVX512_VNNI) beside the sixteen lanes of AVX-512. Included only by the file compiled for
// that level.
#pragma once

#include "ops/cpu/vector_avx512.h"

namespace cepe::ops::cpu {

struct VectorAvx512Vnni : VectorAvx512 {
  static constexpr int byte_rows = 6, byte_columns = 4;  // 24 sums, four columns and a row: 29 of 32 registers
  using Int = __m512i;
  using Fours = __m512i;

  static Int load_int(const int32_t* from) { return _mm512_loadu_si512(from); }
  static Int set_int(int32_t value) { return _mm512_set1_epi32(value); }
  static Int add_int(Int a, Int b) { return _mm512_add_epi32(a, b); }
  static Float to_float(Int a) { return _mm512_cvtepi32_ps(a); }
  static Int to_int(Float a) { return _mm512_cvtps_epi32(a); }  // to nearest
  template <bool is_unsigned>
  static Fours load_fours(const void* from) {
    return _mm512_loadu_si512(from);
  }
  template <bool is_unsigned>
  static Fours set_four(const void* from) {
    int32_t four;
    __builtin_memcpy(&four, from, sizeof four);
    return _mm512_set1_epi32(four);
  }
  static Int add_fours(Int sum, Fours of_unsigned, Fours of_signed) {
    // The intrinsic's sums are copied to other registers and back by GCC 12, which takes as long as the products.
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(of_unsigned), "v"(of_signed));
    return sum;
  }
  // Lanes from 0 to 255, one register's after another's. By one store: a load of fewer bytes need not wait for it.
  static void store_bytes(uint8_t* to, Int a, Int b, Int c, Int d) {
    const __m512i bytes = _mm512_packus_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_storeu_si512(to, _mm512_permutexvar_epi32(order, bytes));
  }
  // The lower bytes of four, lane by lane.
  static void store_fours(void* to, Int a, Int b, Int c, Int d) {
    const __m512i low = _mm512_set1_epi32(0xff);
    const auto at = [&](Int x, int bits) { return _mm512_slli_epi32(_mm512_and_si512(x, low), bits); };
    _mm512_storeu_si512(to,
                        _mm512_or_si512(_mm512_or_si512(at(a, 0), at(b, 8)), _mm512_or_si512(at(c, 16), at(d, 24))));
  }
  static Float fraction(Float x) { return _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
  // p * 2^floor(x), down to zero.
  static Float times_power_of_floor(Float p, Float x) { return _mm512_scalef_ps(p, x); }
};

}  // namespace cepe::ops::cpu
