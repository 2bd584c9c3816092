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
  // Powers of two of biased steps (power_table.h), as pairs of bfloat16; zero gives zero.
  static Pairs power_pairs(Float first, Float second) {
    const auto power = [](float biased) {
      const auto bits = static_cast<uint16_t>(std::bit_cast<uint32_t>(biased));
      return static_cast<uint16_t>((bits & 0xff80u) | power_table.mantissa[bits & 0x7fu]);
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
};

}  // namespace cepe::ops::cpu
