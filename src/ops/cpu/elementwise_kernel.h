// Norms, rotary embedding and gated activations in one pass, over a vector type V and an element type T (float, or
// bfloat16 as uint16_t). bfloat16 is rounded exactly where the composition of ATen operations rounds it. Bound: the
// call itself; 576 floats are 36 registers, some tens of nanoseconds.
#pragma once

#include "ops/cpu/exponential.h"
#include "ops/cpu/kernels.h"

namespace cepe::ops::cpu {

template <class V>
inline typename V::Float load_wide(const float* from) {
  return V::load(from);
}
template <class V>
inline typename V::Float load_wide(const uint16_t* from) {
  return V::load_bfloat16(from);
}
template <class V>
inline void store_narrow(float* to, typename V::Float value) {
  V::store(to, value);
}
template <class V>
inline void store_narrow(uint16_t* to, typename V::Float value) {
  V::store_bfloat16(to, value);
}

// The value as it is after a store in T.
template <class V, class T>
inline typename V::Float rounded(typename V::Float value) {
  if constexpr (sizeof(T) == 4) {
    return value;
  } else {
    T stored[V::width];
    V::store_bfloat16(stored, value);
    return V::load_bfloat16(stored);
  }
}

// body(load, store, i) for i = 0, V::width, ...: the last, partial step goes through zero-filled buffers.
template <class V, class T>
inline typename V::Float load_some(const T* from, int64_t count) {
  if (count >= V::width) return load_wide<V>(from);
  T padded[V::width] = {};
  for (int64_t i = 0; i < count; ++i) padded[i] = from[i];
  return load_wide<V>(padded);
}
template <class V, class T>
inline void store_some(T* to, typename V::Float value, int64_t count) {
  if (count >= V::width) return store_narrow<V>(to, value);
  T padded[V::width];
  store_narrow<V>(padded, value);
  for (int64_t i = 0; i < count; ++i) to[i] = padded[i];
}

// The first `count` lanes; zeros instead of the others.
template <class V>
inline typename V::Float first_lanes(typename V::Float value, int64_t count) {
  if (count >= V::width) return value;
  float lanes[V::width] = {};
  store_some<V>(lanes, value, count);
  return V::load(lanes);
}

template <class V, class T>
void rms_norm_rows(const void* x_data, const void* weight_data, void* y_data, int64_t rows, int64_t width, float eps,
                   bool unit_offset) {
  using Float = typename V::Float;
  const T* weight = static_cast<const T*>(weight_data);
  for (int64_t row = 0; row < rows; ++row) {
    const T* x = static_cast<const T*>(x_data) + row * width;
    T* y = static_cast<T*>(y_data) + row * width;
    Float squares[2] = {V::zero(), V::zero()};
    for (int64_t i = 0, odd = 0; i < width; i += V::width, odd ^= 1) {
      const Float value = load_some<V>(x + i, width - i);
      squares[odd] = V::fma(value, value, squares[odd]);
    }
    const float mean = V::sum(V::add(squares[0], squares[1])) / static_cast<float>(width);
    const Float factor = V::set(1.0f / __builtin_sqrtf(mean + eps));
    for (int64_t i = 0; i < width; i += V::width) {
      const Float normed = V::mul(load_some<V>(x + i, width - i), factor);
      const Float scale = load_some<V>(weight + i, width - i);
      const Float result =
          unit_offset ? V::mul(normed, V::add(V::set(1), scale)) : V::mul(scale, rounded<V, T>(normed));
      store_some<V>(y + i, result, width - i);
    }
  }
}

// bias may be null. The variance is taken around the mean: one more pass over a row that is in cache, no cancellation.
template <class V, class T>
void layer_norm_rows(const void* x_data, const void* weight_data, const void* bias_data, void* y_data, int64_t rows,
                     int64_t width, float eps) {
  using Float = typename V::Float;
  const T* weight = static_cast<const T*>(weight_data);
  const T* bias = static_cast<const T*>(bias_data);
  for (int64_t row = 0; row < rows; ++row) {
    const T* x = static_cast<const T*>(x_data) + row * width;
    T* y = static_cast<T*>(y_data) + row * width;
    Float total = V::zero();
    for (int64_t i = 0; i < width; i += V::width) total = V::add(total, load_some<V>(x + i, width - i));
    const float mean = V::sum(total) / static_cast<float>(width);
    Float squares = V::zero();
    for (int64_t i = 0; i < width; i += V::width) {
      const Float away = first_lanes<V>(V::sub(load_some<V>(x + i, width - i), V::set(mean)), width - i);
      squares = V::fma(away, away, squares);
    }
    const float variance = V::sum(squares) / static_cast<float>(width);
    const Float factor = V::set(1.0f / __builtin_sqrtf(variance + eps));
    for (int64_t i = 0; i < width; i += V::width) {
      const Float normed = V::mul(V::sub(load_some<V>(x + i, width - i), V::set(mean)), factor);
      const Float offset = bias ? load_some<V>(bias + i, width - i) : V::zero();
      store_some<V>(y + i, V::fma(normed, load_some<V>(weight + i, width - i), offset), width - i);
    }
  }
}

template <class V, class T>
void rotate_rows(const RotaryRows& run, int64_t row_begin, int64_t row_end) {
  using Float = typename V::Float;
  const Float direction = V::set(run.backwards ? -1.0f : 1.0f);
  for (int64_t row = row_begin; row < row_end; ++row) {
    const float* cos = run.cos + row * run.half;
    const float* sin = run.sin + row * run.half;
    for (int64_t head = 0; head < run.heads; ++head) {
      const T* x = static_cast<const T*>(run.x) + row * run.row_stride + head * run.head_stride;
      T* y = static_cast<T*>(run.y) + (row * run.heads + head) * run.width;
      for (int64_t i = 0; i < run.half; i += V::width) {
        const int64_t count = run.half - i;
        const Float c = rounded<V, T>(load_some<V>(cos + i, count));
        const Float s = V::mul(direction, rounded<V, T>(load_some<V>(sin + i, count)));
        const Float x1 = load_some<V>(x + i, count);
        const Float x2 = load_some<V>(x + run.half + i, count);
        store_some<V>(y + i, V::sub(rounded<V, T>(V::mul(x1, c)), rounded<V, T>(V::mul(x2, s))), count);
        store_some<V>(y + run.half + i, V::add(rounded<V, T>(V::mul(x2, c)), rounded<V, T>(V::mul(x1, s))), count);
      }
      for (int64_t i = 2 * run.half; i < run.width; ++i) y[i] = x[i];
    }
  }
}

struct Silu {
  template <class V>
  static typename V::Float apply(typename V::Float x) {
    return V::div(x, V::add(V::set(1), exponential<V>(V::sub(V::zero(), x))));
  }
};
// x/2 (1 + tanh u) = x / (1 + e^(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3).
struct GeluTanh {
  template <class V>
  static typename V::Float apply(typename V::Float x) {
    const typename V::Float cube = V::mul(V::mul(x, x), x);
    const typename V::Float u = V::mul(V::set(0.79788456080286536f), V::fma(V::set(0.044715f), cube, x));
    return V::div(x, V::add(V::set(1), exponential<V>(V::mul(V::set(-2), u))));
  }
};
struct Relu {
  template <class V>
  static typename V::Float apply(typename V::Float x) {
    return V::max(V::zero(), x);  // NaN stays: the second operand comes back
  }
};

template <class V, class T, class Function>
void gated_rows(const void* gate_up, void* y_data, int64_t rows, int64_t width) {
  using Float = typename V::Float;
  for (int64_t row = 0; row < rows; ++row) {
    const T* gate = static_cast<const T*>(gate_up) + row * 2 * width;
    T* y = static_cast<T*>(y_data) + row * width;
    for (int64_t i = 0; i < width; i += V::width) {
      const int64_t count = width - i;
      const Float active = rounded<V, T>(Function::template apply<V>(load_some<V>(gate + i, count)));
      store_some<V>(y + i, V::mul(active, load_some<V>(gate + width + i, count)), count);
    }
  }
}

}  // namespace cepe::ops::cpu
