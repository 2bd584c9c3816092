// Gradients of the operations of elementwise_kernel.h. All in float32; only what is stored is rounded.
#pragma once

#include "ops/cpu/elementwise_kernel.h"
#include "ops/cpu/exponential.h"
#include "ops/cpu/kernels.h"

namespace cepe::ops::cpu {

// y = w n, n = x r, r = rsqrt(mean x^2 + eps). With g = w dy: dx = r (g - n mean(g n)), dw = sum over rows of dy n (n
// as the forward pass rounded it). One pass for the two sums, one that writes; the row stays in cache between them.
template <class V, class T>
void rms_norm_gradient_rows(const RmsNormGradient& run, int64_t row_begin, int64_t row_end, float* weight_sums) {
  using Float = typename V::Float;
  const T* weight = static_cast<const T*>(run.weight);
  const Float offset = V::set(run.unit_offset ? 1.0f : 0.0f);
  for (int64_t row = row_begin; row < row_end; ++row) {
    const T* x = static_cast<const T*>(run.x) + row * run.width;
    const T* dy = static_cast<const T*>(run.y_gradient) + row * run.width;
    T* dx = run.x_gradient ? static_cast<T*>(run.x_gradient) + row * run.width : nullptr;
    Float squares = V::zero(), products = V::zero();
    for (int64_t i = 0; i < run.width; i += V::width) {
      const int64_t count = run.width - i;
      const Float value = load_some<V>(x + i, count);
      const Float scaled = V::mul(load_some<V>(dy + i, count), V::add(offset, load_some<V>(weight + i, count)));
      squares = V::fma(value, value, squares);
      products = V::fma(scaled, value, products);
    }
    const auto width = static_cast<float>(run.width);
    const float r = 1.0f / __builtin_sqrtf(V::sum(squares) / width + run.eps);
    const Float factor = V::set(r), shrink = V::set(-(r * r) * (r * V::sum(products) / width));
    for (int64_t i = 0; i < run.width; i += V::width) {
      const int64_t count = run.width - i;
      const Float value = load_some<V>(x + i, count), gradient = load_some<V>(dy + i, count);
      const Float scaled = V::mul(gradient, V::add(offset, load_some<V>(weight + i, count)));
      if (dx) store_some<V>(dx + i, V::fma(value, shrink, V::mul(scaled, factor)), count);
      if (!weight_sums) continue;
      const Float normed = V::mul(value, factor);
      const Float kept = run.unit_offset ? normed : rounded<V, T>(normed);
      store_some<V>(weight_sums + i, V::fma(gradient, kept, load_some<V>(weight_sums + i, count)), count);
    }
  }
}

// y = round(g s) u, s = 1 / (1 + e^-g): du = dy round(g s), dg = dy u s (1 + g (1 - s)).
template <class V, class T>
void gated_silu_gradient_rows(const void* gate_up, const void* y_gradient, void* gate_up_gradient, int64_t rows,
                              int64_t width) {
  using Float = typename V::Float;
  const Float one = V::set(1);
  for (int64_t row = 0; row < rows; ++row) {
    const T* from = static_cast<const T*>(gate_up) + row * 2 * width;
    const T* dy = static_cast<const T*>(y_gradient) + row * width;
    T* to = static_cast<T*>(gate_up_gradient) + row * 2 * width;
    for (int64_t i = 0; i < width; i += V::width) {
      const int64_t count = width - i;
      const Float gate = load_some<V>(from + i, count), up = load_some<V>(from + width + i, count);
      const Float gradient = load_some<V>(dy + i, count);
      const Float sigmoid = V::div(one, V::add(one, exponential<V>(V::sub(V::zero(), gate))));
      const Float slope = V::mul(sigmoid, V::fma(gate, V::sub(one, sigmoid), one));
      store_some<V>(to + i, V::mul(V::mul(gradient, up), slope), count);
      store_some<V>(to + width + i, V::mul(gradient, rounded<V, T>(V::mul(gate, sigmoid))), count);
    }
  }
}

}  // namespace cepe::ops::cpu
