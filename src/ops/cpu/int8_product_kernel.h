// Rows in 8 bits times columns in 8 bits by a processor's matrix unit (AMX-INT8), in tiles as tile_kernel.h has them: a
// tile of W x W sums gets the product of W rows of W fours of int8 with W fours of W columns. Sums are of integers, and
// exact; the scales of row and column and the rounding to bfloat16 follow while the unit works on the next tiles.
// Bound: operations / the unit's rate, if the second level of cache delivers: four tile products of 16 cycles take two
// tiles of columns from there, 32 bytes a cycle, and two of rows from the first level.
#pragma once

#include "ops/cpu/attention_kernel.h"
#include "ops/cpu/tile_kernel.h"

namespace cepe::ops::cpu {

// Sums of 2 W rows and 2 W columns that are to be scaled and stored.
struct Int8Sums {
  const int32_t* sums;  // [2 W, 2 W]
  const float* row_scales;
  uint16_t* to;
  int64_t rows, column;
};

// Rows [begin, end) of them.
template <class V>
inline void store_scaled(const Int8ProductJob& job, const Int8Sums& sums, int64_t begin, int64_t end) {
  constexpr int64_t both = 2 * V::width;
  const typename V::Float left = V::load(job.column_scales + sums.column);
  const typename V::Float right = V::load(job.column_scales + sums.column + V::width);
  for (int64_t row = begin; row < end && row < sums.rows; ++row) {
    const int32_t* from = sums.sums + row * both;
    const typename V::Float scale = V::set(sums.row_scales[row]);
    const typename V::Float first = V::mul(V::mul(V::load_integers(from), left), scale);
    const typename V::Float second = V::mul(V::mul(V::load_integers(from + V::width), right), scale);
    uint16_t* to = sums.to + row * job.outputs + sums.column;
    if (sums.column + both <= job.outputs) {
      V::store_bfloat16(to, first, second);
      continue;
    }
    uint16_t whole[both];
    V::store_bfloat16(whole, first, second);
    for (int64_t i = 0; i < job.outputs - sums.column; ++i) to[i] = whole[i];
  }
}

// The rows of a block, or where some of them are not there, their copy with zeros instead.
template <class V>
inline const int8_t* whole_block(const Int8ProductJob& job, const int8_t* values, int64_t rows) {
  if (rows == 2 * V::width) return values;
  for (int64_t i = 0; i < 2 * V::width * job.width; ++i) job.rows[i] = i < rows * job.width ? values[i] : int8_t{0};
  return job.rows;
}

template <class T, class V>
void multiply_int8(const Int8ProductJob& job, const Int8ProductRows& run) {
  constexpr int64_t both = 2 * V::width, sum_bytes = both * 4;
  const int64_t steps = job.width / (4 * V::width), rows_a_step = (both + steps - 1) / steps;
  const int64_t prefetched = both * job.width / ((job.outputs + both - 1) / both);  // of the next block, beside a tile
  Int8Sums before = {};
  int32_t* sums = job.sums;
  T::begin();
  for (int64_t begin = 0; begin < run.count; begin += both) {
    const int64_t rows = run.count - begin < both ? run.count - begin : both;
    const int8_t* values = whole_block<V>(job, run.values + begin * job.width, rows);
    const int8_t* ahead = begin + 2 * both <= run.count ? run.values + (begin + both) * job.width : nullptr;
    for (int64_t column = 0; column < job.outputs; column += both) {
      if (ahead) prefetch_row<V>(ahead + column / both * prefetched, prefetched);
      const auto* left = reinterpret_cast<const uint32_t*>(job.columns + column * job.width);
      zero_sums<T>();
      multiply_tiles<T, V>(
          values, values + V::width * job.width, job.width, left, left + job.width / 4 * V::width, V::width, steps,
          [&](int64_t step) { store_scaled<V>(job, before, step * rows_a_step, (step + 1) * rows_a_step); });
      T::template store<0>(sums, sum_bytes);
      T::template store<1>(sums + V::width, sum_bytes);
      T::template store<2>(sums + V::width * both, sum_bytes);
      T::template store<3>(sums + V::width * both + V::width, sum_bytes);
      before = {sums, run.scales + begin, run.to + begin * job.outputs, rows, column};
      sums = sums == job.sums ? job.sums + both * both : job.sums;
    }
  }
  if (before.rows > 0) store_scaled<V>(job, before, 0, both);
  T::end();
}

}  // namespace cepe::ops::cpu
