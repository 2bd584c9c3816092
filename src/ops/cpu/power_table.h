// Powers of two in the precision of bfloat16, by integers alone: a score in steps of 1/128 of its base-2 logarithm,
// beside the bias of the exponent, is the bits of its power but for the seven of the mantissa, which a table gives.
//   biased = min(power_bias - steps, power_least)   in float32, whose lower 16 bits then are ~(steps + 127 * 128)
//   power  = (~bits & 0xff80) | power_table.mantissa[bits & 0x7f]
// A power is off by at most 0.65 % of it: rounding to a step gives 2^(1/256), the table half a unit of 1/128. Both
// are rounded to nearest, so that the mean over all fractions is off by less than 1e-4 of it. Below 2^-126: 2^-126.
// The bits are inverted for the sake of NaN: the lower 16 of one that comes of bfloat16 are zeros, which give NaN again
// instead of a power like any other.
#pragma once

#include <cstdint>

namespace cepe::ops::cpu {

inline constexpr int power_steps = 128;                                 // of a power of two
inline constexpr float power_none = 12582912.0f + 65535.0f;             // zero; 1.5 * 2^23: the unit of float32 is 1
inline constexpr float power_bias = power_none - 127.0f * power_steps;  // a score of zero
inline constexpr float power_least = power_none - power_steps;          // the least exponent of bfloat16

struct PowerTable {
  alignas(64) uint8_t mantissa[power_steps] = {};

  constexpr PowerTable() {
    double power = 1;
    for (int step = 0; step < power_steps; ++step) {
      // The largest is 126.6: none reaches 128.
      mantissa[power_steps - 1 - step] = static_cast<uint8_t>((power - 1) * power_steps + 0.5);
      power *= 1.0054299011128027;  // 2^(1 / 128)
    }
  }
};
inline constexpr PowerTable power_table;

}  // namespace cepe::ops::cpu
