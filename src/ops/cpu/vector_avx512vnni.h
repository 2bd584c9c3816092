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
    _mm512_storeu_si512(to, bytes_of_words(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d)));
  }
  // The largest of each of sixteen rows of sixteen: halves, quarters, pairs are joined for all rows together.
  static Float largest_of(const float (&rows)[16][16]) {
    Float fours[4];
    for (int i = 0; i < 4; ++i) {
      const auto pair = [&](int first) {
        const Float a = load(rows[4 * i + first]), b = load(rows[4 * i + first + 1]);
        return max(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
      };
      const Float ab = pair(0), cd = pair(2);
      fours[i] = max(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));  // a row's four lanes apart
    }
    const auto join = [](Float a, Float b) {
      return max(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
    };
    return join(join(fours[0], fours[1]), join(fours[2], fours[3]));
  }
  // 64 weights min(255, 2^(score * scale + base)), for powers below 256, in words: 64 times the exponent's distance
  // from 8, whose lower six bits are looked up and whose upper ones shift. Off by 0.6 %, as much as rounding to 8 bits
  // moves a weight of 90. Sums of fours.
  static Int weigh(const float* scores, float scale, float base, uint8_t* weights) {
    alignas(64) static constexpr uint16_t powers[64] = {
        // 512 * 2^(-i / 64)
        512, 506, 501, 496, 490, 485, 480, 475, 470, 464, 459, 454, 450, 445, 440, 435, 431, 426, 421, 417, 412, 408,
        403, 399, 395, 391, 386, 382, 378, 374, 370, 366, 362, 358, 354, 350, 347, 343, 339, 336, 332, 328, 325, 321,
        318, 315, 311, 308, 304, 301, 298, 295, 292, 288, 285, 282, 279, 276, 273, 270, 267, 264, 262, 259};
    const Float factor = set(-64 * scale), origin = set(64 * (8 - base));
    const auto distance = [&](int i) { return to_int(fma(load(scores + 16 * i), factor, origin)); };
    const auto weigh_words = [&](__m512i words) {
      const __m512i power = _mm512_permutex2var_epi16(_mm512_load_si512(powers), words, _mm512_load_si512(powers + 32));
      return _mm512_avg_epu16(_mm512_srlv_epi16(power, _mm512_srli_epi16(words, 6)), _mm512_setzero_si512());
    };
    const __m512i low = weigh_words(_mm512_packs_epi32(distance(0), distance(1)));
    const __m512i high = weigh_words(_mm512_packs_epi32(distance(2), distance(3)));
    const __m512i bytes = bytes_of_words(low, high);
    _mm512_storeu_si512(weights, bytes);
    return add_fours(set_int(0), bytes, _mm512_set1_epi8(1));
  }
  // The lower bytes of four, lane by lane.
  static void store_fours(void* to, Int a, Int b, Int c, Int d) {
    const __m512i low = _mm512_set1_epi32(0xff);
    const auto at = [&](Int x, int bits) { return _mm512_slli_epi32(_mm512_and_si512(x, low), bits); };
    _mm512_storeu_si512(to,
                        _mm512_or_si512(_mm512_or_si512(at(a, 0), at(b, 8)), _mm512_or_si512(at(c, 16), at(d, 24))));
  }
  static Float fraction(Float x) { return _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
  // p * 2^floor(x).
  static Float times_power_of_floor(Float p, Float x) { return _mm512_scalef_ps(p, x); }

 private:
  // The bytes of four registers of lanes in their order, of what packing each two to words has left of it.
  static __m512i bytes_of_words(__m512i low, __m512i high) {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_epi32(order, _mm512_packus_epi16(low, high));
  }
};

}  // namespace cepe::ops::cpu
