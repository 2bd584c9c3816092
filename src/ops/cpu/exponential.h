// exp and what is made of it, over a vector type.
#pragma once

#include "ops/cpu/kernels.h"

namespace cepe::ops::cpu {

// e^x to 1.5 units in the last place: x = n ln 2 + r, |r| <= ln 2 / 2, Taylor to the seventh power. Below -87.3 (where
// float32 leaves its normal range) zero; above 88 infinity; NaN stays NaN.
template <class V>
inline typename V::Float exponential(typename V::Float x) {
  using Float = typename V::Float;
  // The order of the operands lets NaN through: the instruction returns its second one.
  const Float low = V::set(-104.0f);
  const Float bounded = V::max(low, V::min(V::set(89.0f), x));
  const Float n = V::round(V::mul(bounded, V::set(1.44269504088896341f)));
  Float r = V::fma(n, V::set(-0.693359375f), bounded);
  r = V::fma(n, V::set(2.12194440e-4f), r);
  Float p = V::set(1.0f / 5040);
  p = V::fma(p, r, V::set(1.0f / 720));
  p = V::fma(p, r, V::set(1.0f / 120));
  p = V::fma(p, r, V::set(1.0f / 24));
  p = V::fma(p, r, V::set(1.0f / 6));
  p = V::fma(p, r, V::set(0.5f));
  p = V::fma(p, r, V::set(1.0f));
  p = V::fma(p, r, V::set(1.0f));
  // 2^n in two factors: n reaches -150 and 128, where one alone would leave the range.
  const Float half = V::round(V::mul(n, V::set(0.5f)));
  return V::mul(V::mul(p, V::power_of_two(half)), V::power_of_two(V::sub(n, half)));
}

}  // namespace cepe::ops::cpu
