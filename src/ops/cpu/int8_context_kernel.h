// Keys and values in 8 bits from states and weights in 8 bits: products of bytes, scaled to float32, and rounded to 8
// bits again: a key with a scale of its own, values with one for each column of a block. Bound: byte_products.h, or by
// a matrix unit that of int8_product_kernel.h.
#pragma once

#include <type_traits>

#include "ops/cpu/attention_kernel.h"
#include "ops/cpu/byte_products.h"
#include "ops/cpu/tile_kernel.h"

namespace cepe::ops::cpu {

template <class V>
constexpr int64_t up_to_columns(int64_t width) {
  return (width + byte_columns - 1) / byte_columns * byte_columns;
}

// products [count, width] of a group's keys or values; width: a multiple of 64.
template <class V>
inline void project_bytes(const Int8ContextJob& job, const Int8ContextRows& rows, const int32_t* starts,
                          const uint8_t* columns, const float* scales, int64_t width) {
  for (int64_t column = 0; column < width; column += byte_columns) {
    const uint8_t* right = columns + column * job.width;
    in_row_tiles<V>(0, rows.count, [&]<int count>(int64_t first) {
      multiply_bytes<V, Unsigned::right, count>(
          rows.values + first * job.width, job.width, right, 4 * byte_columns, job.width / 4, starts + first, 0,
          [&](int r, int i, typename V::Int sums) {
            const typename V::Float scale = V::mul(V::load(scales + column + i), V::set(rows.scales[first + r]));
            V::store(job.products + (first + r) * width + column + i, V::mul(V::to_float(sums), scale));
          });
    });
  }
}

// Sums of 2 W rows and 2 W columns that are to be scaled.
struct MixedSums {
  const int32_t* sums;  // [2 W, 2 W]
  int64_t row, column;
};

// Rows [begin, end) of them.
template <class V>
inline void scale_sums(const Int8ContextJob& job, const Int8ContextRows& rows, const int32_t* starts,
                       const float* scales, int64_t width, const MixedSums& sums, int64_t begin, int64_t end) {
  constexpr int64_t both = 2 * V::width;
  for (int64_t row = begin; row < end && row < both; ++row) {
    const int64_t at = sums.row + row;
    for (int64_t i = 0; i < both; i += V::width) {
      const typename V::Int sum = V::add_int(V::load_int(sums.sums + row * both + i), V::set_int(starts[at]));
      const typename V::Float scale = V::mul(V::load(scales + sums.column + i), V::set(rows.scales[at]));
      V::store(job.products + at * width + sums.column + i, V::mul(V::to_float(sum), scale));
    }
  }
}

// The same as project_bytes of a whole block by the tiles of a matrix unit; E: a multiple of 4 W. Sums are scaled while
// the unit works on the next.
template <class T, class V>
inline void project_tiles(const Int8ContextJob& job, const Int8ContextRows& rows, const int32_t* starts,
                          const uint8_t* columns, const float* scales, int64_t width) {
  constexpr int64_t both = 2 * V::width;
  alignas(64) int32_t scratch[2][both * both];
  const int64_t steps = job.width / (4 * V::width), rows_a_step = (both + steps - 1) / steps;
  MixedSums before = {nullptr, 0, 0};
  int which = 0;
  for (int64_t column = 0; column < width; column += both) {
    const auto* left = reinterpret_cast<const uint32_t*>(columns + column / byte_columns * byte_columns * job.width) +
                       column % byte_columns;
    for (int64_t row = 0; row < int8_block; row += both, which = 1 - which) {
      const int8_t* values = rows.values + row * job.width;
      zero_sums<T>();
      multiply_tiles<T, V>(values, values + V::width * job.width, job.width, left, left + V::width, byte_columns, steps,
                           [&](int64_t step) {
                             if (before.sums)
                               scale_sums<V>(job, rows, starts, scales, width, before, step * rows_a_step,
                                             (step + 1) * rows_a_step);
                           });
      int32_t* to = scratch[which];
      T::template store<0>(to, both * 4);
      T::template store<1>(to + V::width, both * 4);
      T::template store<2>(to + V::width * both, both * 4);
      T::template store<3>(to + V::width * both + V::width, both * 4);
      before = {to, row, column};
    }
  }
  scale_sums<V>(job, rows, starts, scales, width, before, 0, both);
}

// The magnitudes' largest, as what a step of 8 bits is; never zero.
template <class V>
inline typename V::Float largest_magnitude(typename V::Float largest, typename V::Float value) {
  return V::max(largest, V::max(value, V::sub(V::zero(), value)));
}
inline constexpr float least_step = 1e-30f;

template <class V>
inline void store_keys(const Int8ContextJob& job, int64_t count, uint8_t* to, float* scales) {
  const int64_t width = up_to_columns<V>(job.shape.key_width);
  const typename V::Float bias = V::set(128);
  for (int64_t row = 0; row < count; ++row) {
    const float* products = job.products + row * width;
    typename V::Float largest = V::zero();
    for (int64_t i = 0; i < width; i += V::width) largest = largest_magnitude<V>(largest, V::load(products + i));
    const float step = V::largest(largest) / 127;
    scales[row] = step > least_step ? step : least_step;  // that of NaN too: store_values tells of it
    const typename V::Float inverse = V::set(1 / scales[row]);
    const auto byte = [&](int64_t i) { return V::to_int(V::fma(V::load(products + i), inverse, bias)); };
    for (int64_t i = 0; i < width; i += 4 * V::width)
      V::store_bytes(job.bytes + i, byte(i), byte(i + V::width), byte(i + 2 * V::width), byte(i + 3 * V::width));
    for (int64_t i = 0; i < job.shape.key_width; i += 4)
      __builtin_memcpy(to + i * int8_block + 4 * row, job.bytes + i, 4);
  }
  for (int64_t row = count; row < int8_block; ++row) {
    scales[row] = 0;
    for (int64_t i = 0; i < job.shape.key_width; i += 4) __builtin_memset(to + i * int8_block + 4 * row, 128, 4);
  }
}

// `damaged`: a row or a weight is NaN or infinite. Bytes do not say so; the scales do, so that whatever reads the block
// becomes NaN.
template <class V>
inline void store_values(const Int8ContextJob& job, int64_t count, bool damaged, uint8_t* to, float* scales) {
  using Float = typename V::Float;
  const int64_t width = job.shape.value_width;
  for (int64_t i = 0; i < width; i += V::width) {
    Float largest = V::zero();
    for (int64_t row = 0; row < count; ++row)
      largest = largest_magnitude<V>(largest, V::load(job.products + row * width + i));
    const Float step = V::max(V::mul(largest, V::set(1.0f / 127)), V::set(least_step));
    V::store(scales + i, damaged ? V::set(__builtin_nanf("")) : step);
    const Float inverse = V::div(V::set(1), step);
    const auto value = [&](int64_t row) {
      return row < count ? V::to_int(V::mul(V::load(job.products + row * width + i), inverse)) : V::set_int(0);
    };
    for (int64_t row = 0; row < int8_block; row += 4)
      V::store_fours(to + row * width + 4 * i, value(row), value(row + 1), value(row + 2), value(row + 3));
  }
}

template <class V>
inline bool any_infinite_or_nan(const float* scales, int64_t count) {
  bool found = false;
  for (int64_t i = 0; i < count; ++i) found |= !__builtin_isfinite(scales[i]);
  return found;
}

template <class T, class V>
void project_int8(const Int8ContextJob& job, const Int8ContextRows& rows) {
  bool tiled = false;
  if constexpr (!std::is_same_v<T, NoTiles>) tiled = rows.count == int8_block && job.width % (4 * V::width) == 0;
  if (tiled) T::begin();
  int32_t starts[int8_block];
  const bool damaged_rows = any_infinite_or_nan<V>(rows.scales, rows.count);
  for (int64_t row = 0; row < rows.count; ++row) {
    int32_t sum = 0;
    for (int64_t i = 0; i < job.width; ++i) sum += rows.values[row * job.width + i];
    starts[row] = -128 * sum;
  }
  const int64_t key_columns = up_to_columns<V>(job.shape.key_width);
  const uint8_t* columns = job.columns;
  const float* column_scales = job.column_scales;
  const Int8BlockShape& shape = job.shape;
  uint8_t* to = rows.to;
  const auto project = [&](int64_t width) {
    if constexpr (!std::is_same_v<T, NoTiles>) {
      if (tiled) return project_tiles<T, V>(job, rows, starts, columns, column_scales, width);
    }
    project_bytes<V>(job, rows, starts, columns, column_scales, width);
  };
  for (int64_t group = 0; group < shape.groups; ++group, to += shape.group_bytes()) {
    auto* scales = reinterpret_cast<float*>(to + shape.scales());
    const bool damaged = damaged_rows || any_infinite_or_nan<V>(column_scales, key_columns + shape.value_width);
    project(key_columns);
    store_keys<V>(job, rows.count, to, scales);
    columns += key_columns * job.width;
    column_scales += key_columns;
    project(shape.value_width);
    store_values<V>(job, rows.count, damaged, to + shape.values(), scales + int8_block);
    columns += shape.value_width * job.width;
    column_scales += shape.value_width;
  }
  if (tiled) T::end();
}

}  // namespace cepe::ops::cpu
