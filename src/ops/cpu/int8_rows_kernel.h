// Rows to 8 bits with a scale each (ops/int8_rows.h), in two passes over a row that is in cache, over a vector type V
// and an element type T (float, or bfloat16 as uint16_t). Bound: the bytes, read once and half or a quarter written.
#pragma once

#include <cstring>

#include "ops/cpu/elementwise_kernel.h"

namespace cepe::ops::cpu {

// What is neither a number nor finite makes the scale NaN.
template <class V, class T>
inline float int8_scale(const T* x, int64_t width) {
  using Float = typename V::Float;
  Float largest = V::zero(), broken = V::zero();
  for (int64_t i = 0; i < width; i += V::width) {
    const Float value = load_some<V>(x + i, width - i);
    largest = V::max(largest, V::max(value, V::sub(V::zero(), value)));
    broken = V::fma(value, V::zero(), broken);
  }
  constexpr float least = 1e-30f;
  const float scale = V::largest(largest) / 127;
  return (scale > least ? scale : least) + V::sum(broken);
}

// y: `width` bytes a row, then a float32 scale a row.
template <class V, class T>
void int8_rows_of(const void* x_data, uint8_t* y, int64_t rows, int64_t width) {
  // Adding this rounds to whole numbers, halves to even ones, and leaves them in the lowest bits.
  const typename V::Float shift = V::set(0x1.8p23f);
  for (int64_t row = 0; row < rows; ++row) {
    const T* x = static_cast<const T*>(x_data) + row * width;
    const float scale = int8_scale<V>(x, width);
    const typename V::Float divisor = V::set(scale);
    for (int64_t i = 0; i < width; i += V::width) {
      float shifted[V::width];
      uint32_t bits[V::width];
      V::store(shifted, V::add(V::div(load_some<V>(x + i, width - i), divisor), shift));
      std::memcpy(bits, shifted, sizeof bits);
      uint8_t* to = y + row * width + i;
      const int64_t count = width - i < V::width ? width - i : V::width;
      for (int64_t k = 0; k < count; ++k) to[k] = static_cast<uint8_t>(bits[k]);
    }
    std::memcpy(y + rows * width + row * 4, &scale, sizeof scale);
  }
}

}  // namespace cepe::ops::cpu
