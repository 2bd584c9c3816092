// Eight float32 lanes in plain C++: what any processor can run, and what the vector levels are tested against.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "base/half.h"
#include "ops/cpu/power_table.h"

namespace cepe::ops::cpu {

struct VectorPortable {
  static constexpr int width = 8;
  static constexpr int query_block = 2;
  static constexpr int value_pairs = 1;
  static constexpr int row_block = 2;
  struct Float {
    float lane[width];
  };
  struct Words {
    uint32_t lane[width];
  };
  using Pairs = Words;  // of bfloat16; the lower half of a lane is the first of its pair

  template <class Function>
  static Float lanes(Function function) {
    Float result;
    for (int i = 0; i < width; ++i) result.lane[i] = function(i);
    return result;
  }
  static Float zero() { return set(0); }
  static Float set(float value) {
    return lanes([&](int) { return value; });
  }
  static Float load(const float* from) {
    return lanes([&](int i) { return from[i]; });
  }
  static void store(float* to, Float value) {
    for (int i = 0; i < width; ++i) to[i] = value.lane[i];
  }
  static Float add(Float a, Float b) {
    return lanes([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  static Float sub(Float a, Float b) {
    return lanes([&](int i) { return a.lane[i] - b.lane[i]; });
  }
  static Float mul(Float a, Float b) {
    return lanes([&](int i) { return a.lane[i] * b.lane[i]; });
  }
  static Float div(Float a, Float b) {
    return lanes([&](int i) { return a.lane[i] / b.lane[i]; });
  }
  // As the processor's instructions: b where one of the two is NaN.
  static Float max(Float a, Float b) {
    return lanes([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static Float min(Float a, Float b) {
    return lanes([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static Float fma(Float a, Float b, Float c) {
    return lanes([&](int i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
  }
  static float sum(Float a) {
    float total = 0;
    for (float value : a.lane) total += value;
    return total;
  }
  static float largest(Float a) {
    float result = a.lane[0];
    for (float value : a.lane) result = value > result ? value : result;
    return result;
  }

  static Float load_float16(const uint16_t* from) {
    return lanes([&](int i) { return base::float16_to_float(from[i]); });
  }
  static Float load_int8(const uint8_t* from) {
    return lanes([&](int i) { return static_cast<float>(static_cast<int8_t>(from[i])); });
  }
  static Words load_words(const uint8_t* from) {
    Words words;
    for (int i = 0; i < width; ++i) {
      const uint8_t* bytes = from + 4 * i;
      words.lane[i] = bytes[0] | (uint32_t{bytes[1]} << 8) | (uint32_t{bytes[2]} << 16) | (uint32_t{bytes[3]} << 24);
    }
    return words;
  }
  template <int k>
  static Float nibble(Words words) {
    return lanes([&](int i) { return static_cast<float>(static_cast<int>((words.lane[i] >> (4 * k)) & 15u) - 8); });
  }

  static Float load_bfloat16(const uint16_t* from) {
    return lanes([&](int i) { return base::bfloat16_to_float(from[i]); });
  }
  static void store_bfloat16(uint16_t* to, Float value) {
    for (int i = 0; i < width; ++i) to[i] = base::float_to_bfloat16(value.lane[i]);
  }
  static void store_bfloat16(uint16_t* to, Float first, Float second) {
    store_bfloat16(to, first);
    store_bfloat16(to + width, second);
  }
  static Float load_integers(const int32_t* from) {
    return lanes([&](int i) { return static_cast<float>(from[i]); });
  }

  template <class Function>
  static Pairs pair_lanes(Function function) {
    Pairs result;
    for (int i = 0; i < width; ++i) result.lane[i] = function(i);
    return result;
  }
  static uint32_t joined(uint16_t first, uint16_t second) { return first | uint32_t{second} << 16; }
  static Pairs load_pairs(const uint32_t* from) {
    return pair_lanes([&](int i) { return from[i]; });
  }
  static void store_pairs(uint32_t* to, Pairs pairs) {
    for (int i = 0; i < width; ++i) to[i] = pairs.lane[i];
  }
  static Pairs set_pair(const uint32_t* from) {
    return pair_lanes([&](int) { return *from; });
  }
  static Pairs set_pair(const uint16_t* from) {
    return pair_lanes([&](int) { return joined(from[0], from[1]); });
  }
  static Float add_products(Float sum, Pairs a, Pairs b) {
    return lanes([&](int i) {
      const auto half = [](uint32_t pair, int which) {
        return base::bfloat16_to_float(static_cast<uint16_t>(which == 0 ? pair : pair >> 16));
      };
      const float second = half(a.lane[i], 1) * half(b.lane[i], 1);
      return sum.lane[i] + half(a.lane[i], 0) * half(b.lane[i], 0) + second;
    });
  }
  // Nibbles k and k + 4 of each lane, minus 8.
  template <int k>
  static Pairs nibble_pair(Words words) {
    const auto value = [](uint32_t word, int i) {
      return base::float_to_bfloat16(static_cast<float>(static_cast<int>(word >> (4 * i) & 15u) - 8));
    };
    return pair_lanes([&](int i) { return joined(value(words.lane[i], k), value(words.lane[i], k + 4)); });
  }
  static Pairs byte_pair(const uint8_t* first, const uint8_t* second) {
    const auto value = [](uint8_t byte) {
      return base::float_to_bfloat16(static_cast<float>(static_cast<int8_t>(byte)));
    };
    return pair_lanes([&](int i) { return joined(value(first[i]), value(second[i])); });
  }
  // Powers of two of biased steps (power_table.h), as pairs of bfloat16; NaN gives NaN.
  static Pairs power_pairs(Float first, Float second) {
    const auto power = [](float biased) {
      const auto bits = static_cast<uint16_t>(std::bit_cast<uint32_t>(biased));
      return static_cast<uint16_t>((~bits & 0xff80u) | power_table.mantissa[bits & 0x7fu]);
    };
    return pair_lanes([&](int i) { return joined(power(first.lane[i]), power(second.lane[i])); });
  }
  static bool all_ones(Float values) {
    for (const float value : values.lane) {
      if (value != 1) return false;
    }
    return true;
  }
  // rows[i] lane j <-> rows[j] lane i.
  static void transpose(Pairs (&rows)[width]) {
    for (int i = 0; i < width; ++i) {
      for (int j = 0; j < i; ++j) {
        const uint32_t kept = rows[i].lane[j];
        rows[i].lane[j] = rows[j].lane[i];
        rows[j].lane[i] = kept;
      }
    }
  }
  // Of two rows; zeros for one that is not there.
  static Pairs interleave(const uint16_t* first, const uint16_t* second) {
    return pair_lanes([&](int i) { return joined(first ? first[i] : 0, second ? second[i] : 0); });
  }

  static void load_pair(const uint16_t* from, Float& first, Float& second) {
    first = lanes([&](int i) { return base::bfloat16_to_float(from[2 * i]); });
    second = lanes([&](int i) { return base::bfloat16_to_float(from[2 * i + 1]); });
  }
  static void load_pair(const float* from, Float& first, Float& second) {
    first = load(from);
    second = load(from + width);
  }
  static void store_sums(Float a, Float b, Float c, Float d, float* out) {
    out[0] = sum(a);
    out[1] = sum(b);
    out[2] = sum(c);
    out[3] = sum(d);
  }
  static Float power_of_two(Float n) {
    return lanes([&](int i) {
      const int exponent = n.lane[i] == n.lane[i] ? static_cast<int>(n.lane[i]) : 0;
      return std::bit_cast<float>(static_cast<uint32_t>(exponent + 127) << 23);
    });
  }
  static Float round(Float a) {
    return lanes([&](int i) { return std::nearbyint(a.lane[i]); });
  }

  static constexpr int byte_rows = 2, byte_columns = 2;
  struct Int {
    int32_t lane[width];
  };
  struct Fours {
    int32_t byte[width][4];
  };
  template <class Function>
  static Int int_lanes(Function function) {
    Int result;
    for (int i = 0; i < width; ++i) result.lane[i] = function(i);
    return result;
  }
  static Int load_int(const int32_t* from) {
    return int_lanes([&](int i) { return from[i]; });
  }
  static Int set_int(int32_t value) {
    return int_lanes([&](int) { return value; });
  }
  static Int add_int(Int a, Int b) {
    return int_lanes([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  static Float to_float(Int a) {
    return lanes([&](int i) { return static_cast<float>(a.lane[i]); });
  }
  static Int to_int(Float a) {
    return int_lanes([&](int i) { return static_cast<int32_t>(std::nearbyint(a.lane[i])); });
  }
  template <bool is_unsigned>
  static Fours load_fours(const void* from) {
    Fours fours;
    for (int i = 0; i < 4 * width; ++i) fours.byte[i / 4][i % 4] = byte_at<is_unsigned>(from, i);
    return fours;
  }
  template <bool is_unsigned>
  static Fours set_four(const void* from) {
    Fours fours;
    for (int i = 0; i < 4 * width; ++i) fours.byte[i / 4][i % 4] = byte_at<is_unsigned>(from, i % 4);
    return fours;
  }
  static Int add_fours(Int sum, const Fours& of_unsigned, const Fours& of_signed) {
    return int_lanes([&](int i) {
      int32_t total = sum.lane[i];
      for (int k = 0; k < 4; ++k) total += of_unsigned.byte[i][k] * of_signed.byte[i][k];
      return total;
    });
  }
  static void store_bytes(uint8_t* to, Int a, Int b, Int c, Int d) {
    const Int parts[4] = {a, b, c, d};
    for (int i = 0; i < 4 * width; ++i) to[i] = static_cast<uint8_t>(parts[i / width].lane[i % width]);
  }
  static void store_fours(void* to, Int a, Int b, Int c, Int d) {
    auto* bytes = static_cast<uint8_t*>(to);
    const Int parts[4] = {a, b, c, d};
    for (int i = 0; i < 4 * width; ++i) bytes[i] = static_cast<uint8_t>(parts[i % 4].lane[i / 4]);
  }
  static Float fraction(Float x) {
    return lanes([&](int i) { return x.lane[i] - std::floor(x.lane[i]); });
  }
  // p * 2^floor(x).
  static Float times_power_of_floor(Float p, Float x) {
    return lanes([&](int i) { return p.lane[i] * std::exp2(std::floor(x.lane[i])); });
  }

 private:
  template <bool is_unsigned>
  static int32_t byte_at(const void* from, int i) {
    const uint8_t byte = static_cast<const uint8_t*>(from)[i];
    return is_unsigned ? byte : static_cast<int8_t>(byte);
  }
};

}  // namespace cepe::ops::cpu
