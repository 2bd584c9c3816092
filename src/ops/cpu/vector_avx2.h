// Eight float32 lanes of AVX2 with FMA and F16C. Included only by the file compiled for that level.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace cepe::ops::cpu {

struct VectorAvx2 {
  static constexpr int width = 8;
  static constexpr int query_block = 3;  // 3 x 4 sums, two halves of a key: 14 of 16 registers
  static constexpr int value_pairs = 1;
  static constexpr int row_block = 4;
  using Float = __m256;
  using Words = __m256i;

  static Float zero() { return _mm256_setzero_ps(); }
  static Float set(float value) { return _mm256_set1_ps(value); }
  static Float load(const float* from) { return _mm256_loadu_ps(from); }
  static void store(float* to, Float value) { _mm256_storeu_ps(to, value); }
  static Float add(Float a, Float b) { return _mm256_add_ps(a, b); }
  static Float sub(Float a, Float b) { return _mm256_sub_ps(a, b); }
  static Float mul(Float a, Float b) { return _mm256_mul_ps(a, b); }
  static Float div(Float a, Float b) { return _mm256_div_ps(a, b); }
  static Float max(Float a, Float b) { return _mm256_max_ps(a, b); }
  static Float min(Float a, Float b) { return _mm256_min_ps(a, b); }
  static Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
  static float sum(Float a) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
  }
  static float largest(Float a) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
  }

  static Float load_float16(const uint16_t* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static Float load_int8(const uint8_t* from) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
  }
  static Words load_words(const uint8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
  // Nibble k of each lane, minus 8.
  template <int k>
  static Float nibble(Words words) {
    const __m256i value = _mm256_and_si256(_mm256_srli_epi32(words, 4 * k), _mm256_set1_epi32(15));
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(value, _mm256_set1_epi32(8)));
  }

  static Float load_bfloat16(const uint16_t* from) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
  }
  // Rounds to nearest, ties to even; NaN stays NaN.
  static void store_bfloat16(uint16_t* to, Float value) {
    const __m256i bits = _mm256_castps_si256(value);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded =
        _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd), 16);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
    const __m256i kept = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc0), nan);
    const __m128i low = _mm256_castsi256_si128(kept);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm_packus_epi32(low, _mm256_extracti128_si256(kept, 1)));
  }

  static void load_pair(const uint16_t* from, Float& first, Float& second) {
    const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    first = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
    second = _mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  static void load_pair(const float* from, Float& first, Float& second) {
    first = load(from);
    second = load(from + width);
  }
  static void store_sums(Float a, Float b, Float c, Float d, float* out) {
    const __m256 quads = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(quads), _mm256_extractf128_ps(quads, 1)));
  }
  static Float power_of_two(Float n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
  }
  static Float round(Float a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

  static constexpr int byte_rows = 4, byte_columns = 2;  // 8 sums, the halves of two columns and of a row: 14 registers
  using Int = __m256i;
  struct Fours {  // the first and third, the second and fourth bytes of each lane, in 16 bits
    __m256i even, odd;
  };

  static Int set_int(int32_t value) { return _mm256_set1_epi32(value); }
  static Int add_int(Int a, Int b) { return _mm256_add_epi32(a, b); }
  static Float to_float(Int a) { return _mm256_cvtepi32_ps(a); }
  static Int to_int(Float a) { return _mm256_cvtps_epi32(a); }  // to nearest
  template <bool is_unsigned>
  static Fours load_fours(const void* from) {
    return fours_of<is_unsigned>(_mm256_loadu_si256(static_cast<const __m256i*>(from)));
  }
  template <bool is_unsigned>
  static Fours set_four(const void* from) {
    int32_t four;
    __builtin_memcpy(&four, from, sizeof four);
    return fours_of<is_unsigned>(_mm256_set1_epi32(four));
  }
  static Int add_fours(Int sum, Fours of_unsigned, Fours of_signed) {
    return _mm256_add_epi32(_mm256_add_epi32(sum, _mm256_madd_epi16(of_unsigned.even, of_signed.even)),
                            _mm256_madd_epi16(of_unsigned.odd, of_signed.odd));
  }
  // Lanes from 0 to 255, one register's after another's.
  static void store_bytes(uint8_t* to, Int a, Int b, Int c, Int d) {
    const __m256i bytes = _mm256_packus_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permutevar8x32_epi32(bytes, order));
  }
  // The lower bytes of four, lane by lane.
  static void store_fours(void* to, Int a, Int b, Int c, Int d) {
    const __m256i low = _mm256_set1_epi32(0xff);
    const auto at = [&](Int x, int bits) { return _mm256_slli_epi32(_mm256_and_si256(x, low), bits); };
    _mm256_storeu_si256(static_cast<__m256i*>(to),
                        _mm256_or_si256(_mm256_or_si256(at(a, 0), at(b, 8)), _mm256_or_si256(at(c, 16), at(d, 24))));
  }
  static Float fraction(Float x) { return sub(x, _mm256_floor_ps(x)); }
  // p * 2^floor(x), for x from -126 on.
  static Float times_power_of_floor(Float p, Float x) { return mul(p, power_of_two(_mm256_floor_ps(x))); }

 private:
  template <bool is_unsigned>
  static Fours fours_of(__m256i bytes) {
    if constexpr (is_unsigned) return {_mm256_and_si256(bytes, _mm256_set1_epi16(0xff)), _mm256_srli_epi16(bytes, 8)};
    return {_mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8), _mm256_srai_epi16(bytes, 8)};
  }
};

}  // namespace cepe::ops::cpu
