// Products of pairs of bfloat16 (AVX512_BF16) and powers by a table of bytes (AVX512_VBMI) beside the sixteen lanes of
// AVX-512. Included only by the file compiled for that level.
#pragma once

#include "ops/cpu/power_table.h"
#include "ops/cpu/vector_avx512.h"

namespace cepe::ops::cpu {

struct VectorAvx512Bfloat16 : VectorAvx512 {
  using Pairs = __m512i;  // the lower half of a lane is the first of its pair

  static Pairs load_pairs(const uint32_t* from) { return _mm512_loadu_si512(from); }
  static void store_pairs(uint32_t* to, Pairs pairs) { _mm512_storeu_si512(to, pairs); }
  static Pairs set_pair(const uint32_t* from) { return _mm512_set1_epi32(static_cast<int>(*from)); }
  static Pairs set_pair(const uint16_t* from) {
    uint32_t pair;
    __builtin_memcpy(&pair, from, sizeof pair);
    return _mm512_set1_epi32(static_cast<int>(pair));
  }
  static Float add_products(Float sum, Pairs a, Pairs b) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
  // Nibbles k and k + 4 of each lane, minus 8. The permutation of halves reads the low five bits of each: the table
  // stands there twice.
  template <int k>
  static Pairs nibble_pair(Words words) {
    alignas(64) static constexpr uint16_t table[32] = {0xc100, 0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040, 0xc000, 0xbf80,
                                                       0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0,
                                                       0xc100, 0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040, 0xc000, 0xbf80,
                                                       0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0};
    return _mm512_permutexvar_epi16(k == 0 ? words : _mm512_srli_epi32(words, 4 * k), _mm512_load_si512(table));
  }
  // Of two times sixteen int8: bfloat16 has them exactly, as the upper half of the float32.
  static Pairs byte_pair(const uint8_t* first, const uint8_t* second) {
    return _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(_mm512_castps_si512(load_int8(first)), 16),
                                   _mm512_castps_si512(load_int8(second)));
  }
  // Powers of two of biased steps (power_table.h), as pairs of bfloat16; NaN gives NaN. The permutation reads seven
  // bits of each byte; those of a half's upper byte are not looked up.
  static Pairs power_pairs(Float first, Float second) {
    const __m512i low = _mm512_load_si512(power_table.mantissa), high = _mm512_load_si512(power_table.mantissa + 64);
    const __m512i bits = _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_castps_si512(first),
                                                 _mm512_slli_epi32(_mm512_castps_si512(second), 16));
    const __m512i mantissas = _mm512_maskz_permutex2var_epi8(0x5555555555555555, low, bits, high);
    return _mm512_ternarylogic_epi32(bits, _mm512_set1_epi16(static_cast<int16_t>(0xff80)), mantissas, 0xae);
  }
  using VectorAvx512::store_bfloat16;
  static void store_bfloat16(uint16_t* to, Float first, Float second) {
    _mm512_storeu_si512(to, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second, first)));
  }
  static Float load_integers(const int32_t* from) { return _mm512_cvtepi32_ps(_mm512_loadu_si512(from)); }
  // Of two rows; zeros for one that is not there.
  static Pairs interleave(const uint16_t* first, const uint16_t* second) {
    const auto row = [](const uint16_t* from) {
      return from ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)) : _mm256_setzero_si256();
    };
    return joined(row(first), row(second));
  }
  static bool all_ones(Float values) { return _mm512_cmp_ps_mask(values, set(1), _CMP_EQ_OQ) == 0xffff; }
  // rows[i] lane j <-> rows[j] lane i.
  static void transpose(Pairs (&rows)[width]) {
    Pairs twos[width], fours[width];
    for (int i = 0; i < width; i += 2) {
      twos[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
      twos[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    for (int i = 0; i < width; i += 4) {
      fours[i] = _mm512_unpacklo_epi64(twos[i], twos[i + 2]);
      fours[i + 1] = _mm512_unpackhi_epi64(twos[i], twos[i + 2]);
      fours[i + 2] = _mm512_unpacklo_epi64(twos[i + 1], twos[i + 3]);
      fours[i + 3] = _mm512_unpackhi_epi64(twos[i + 1], twos[i + 3]);
    }
    for (int i = 0; i < 4; ++i) {  // fours[4 g + i]: of rows 4 g to 4 g + 3, in quarter q column 4 q + i
      const Pairs even_low = _mm512_shuffle_i32x4(fours[i], fours[4 + i], 0x88);
      const Pairs odd_low = _mm512_shuffle_i32x4(fours[i], fours[4 + i], 0xdd);
      const Pairs even_high = _mm512_shuffle_i32x4(fours[8 + i], fours[12 + i], 0x88);
      const Pairs odd_high = _mm512_shuffle_i32x4(fours[8 + i], fours[12 + i], 0xdd);
      rows[i] = _mm512_shuffle_i32x4(even_low, even_high, 0x88);
      rows[4 + i] = _mm512_shuffle_i32x4(odd_low, odd_high, 0x88);
      rows[8 + i] = _mm512_shuffle_i32x4(even_low, even_high, 0xdd);
      rows[12 + i] = _mm512_shuffle_i32x4(odd_low, odd_high, 0xdd);
    }
  }

 private:
  static Pairs joined(__m256i first, __m256i second) {
    return _mm512_or_si512(_mm512_cvtepu16_epi32(first), _mm512_slli_epi32(_mm512_cvtepu16_epi32(second), 16));
  }
};

}  // namespace cepe::ops::cpu
