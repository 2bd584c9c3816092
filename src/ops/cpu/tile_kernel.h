// Attention of many query rows a group by a processor's matrix unit (AMX): a tile of W x W sums
// gets the product of W rows of W pairs of bfloat16 with W pairs of W columns; W = 16 there, that of the lanes. `T` has
// the tiles, `V` the lanes.
//   scores    [W cached rows, W query rows] = keys as they lie  x  queries packed by pairs (PairAttentionJob)
//   softmax   lane by lane, as in pair_attention_kernel.h
//   output    [W columns, W query rows] += values transposed  x  pairs of probabilities, as the softmax leaves them
// Bound: products and softmax alike, as far as they do not overlap. Of the 64 rows of a block and 16 query rows of
// width 64 the products take 16 tile instructions of 16 cycles, the softmax about 14 instructions for each two of the
// rows.
#pragma once

#include "ops/cpu/attention_kernel.h"
#include "ops/cpu/pair_attention_kernel.h"

namespace cepe::ops::cpu {

struct NothingBetween {
  void operator()(int64_t /*step*/) const {}
};

// Four tiles of sums, 0 and 1 above 2 and 3, += two of rows (4, 5), `step` bytes a pair of columns apart, times two of
// columns (6, 7). Rows and columns that are one only stand for both. `between` is what the vector units do meanwhile,
// step by step.
template <class T, class V, class Between = NothingBetween>
inline void multiply_tiles(const void* upper, const void* lower, int64_t row_stride, const uint32_t* left,
                           const uint32_t* right, int64_t column_stride, int64_t steps, const Between& between = {}) {
  constexpr int64_t row_step = V::width * 4;
  const auto* above = static_cast<const unsigned char*>(upper);
  const auto* below = static_cast<const unsigned char*>(lower);
  for (int64_t step = 0; step < steps; ++step) {
    T::template load<4>(above + step * row_step, row_stride);
    T::template load<6>(left + step * V::width * column_stride, column_stride * 4);
    T::template multiply<0, 4, 6>();
    T::template load<5>(below + step * row_step, row_stride);
    T::template multiply<2, 5, 6>();
    T::template load<7>(right + step * V::width * column_stride, column_stride * 4);
    T::template multiply<1, 4, 7>();
    T::template multiply<3, 5, 7>();
    between(step);
  }
}

template <class T>
inline void zero_sums() {
  T::template zero<0>();
  T::template zero<1>();
  T::template zero<2>();
  T::template zero<3>();
}

// scores [row, block, lane] of a block of cached rows and `blocks` blocks of query rows.
template <class T, class V, int blocks>
inline void score_tiles(const PairAttentionJob& job, const uint32_t* query, const uint16_t* keys, int64_t stride) {
  const int64_t pairs = job.key_width / 2;
  for (int row = 0; row < pair_block; row += 2 * V::width) {
    for (int left = 0; left < blocks; left += 2) {
      const int right = left + 1 < blocks ? left + 1 : left;
      zero_sums<T>();
      multiply_tiles<T, V>(keys + row * stride, keys + (row + V::width) * stride, stride * 2,
                           query + left * pairs * V::width, query + right * pairs * V::width, V::width,
                           pairs / V::width);
      float* to = job.scores + (row * blocks + left) * V::width;
      constexpr int64_t apart = int64_t{blocks} * V::width;
      T::template store<0>(to, apart * 4);
      T::template store<2>(to + V::width * apart, apart * 4);
      if (right == left) continue;
      T::template store<1>(to + V::width, apart * 4);
      T::template store<3>(to + V::width * apart + V::width, apart * 4);
    }
  }
}

// output [block, column, lane] = output * keep + values^T weights.
template <class T, class V, int blocks>
inline void add_tiles(const PairAttentionJob& job, const typename V::Float (&keep)[blocks], float* output) {
  const int64_t width = job.value_width;
  constexpr int64_t tile = int64_t{V::width} * V::width, lane_bytes = V::width * 4;
  for (int b = 0; b < blocks; ++b) {
    if (V::all_ones(keep[b])) continue;
    float* rows = output + b * width * V::width;
    for (int64_t i = 0; i < width * V::width; i += V::width) V::store(rows + i, V::mul(V::load(rows + i), keep[b]));
  }
  for (int64_t column = 0; column < width; column += 2 * V::width) {
    for (int left = 0; left < blocks; left += 2) {
      const int right = left + 1 < blocks ? left + 1 : left;
      float* first = output + (left * width + column) * V::width;
      float* second = output + (right * width + column) * V::width;
      T::template load<0>(first, lane_bytes);
      T::template load<2>(first + tile, lane_bytes);
      T::template load<1>(second, lane_bytes);
      T::template load<3>(second + tile, lane_bytes);
      const uint32_t* values = job.values + column * (pair_block / 2);
      multiply_tiles<T, V>(values, values + V::width * (pair_block / 2), pair_block * 2, job.weights + left * V::width,
                           job.weights + right * V::width, int64_t{blocks} * V::width, pair_block / 2 / V::width);
      T::template store<0>(first, lane_bytes);
      T::template store<2>(first + tile, lane_bytes);
      if (right == left) continue;
      T::template store<1>(second, lane_bytes);
      T::template store<3>(second + tile, lane_bytes);
    }
  }
}

// The block's values as [column, row]; rows that are not there are zeros.
template <class V>
inline void transpose_values(const PairAttentionJob& job, const uint16_t* values, int64_t stride, int rows) {
  for (int first = 0; first < pair_block; first += 2 * V::width) {
    for (int64_t column = 0; column < job.value_width; column += V::width) {
      typename V::Pairs pairs[V::width];  // of rows
      for (int i = 0; i < V::width; ++i) {
        const int row = first + 2 * i;
        const uint16_t* from = values + row * stride + column;
        pairs[i] = V::interleave(row < rows ? from : nullptr, row + 1 < rows ? from + stride : nullptr);
      }
      V::transpose(pairs);
      for (int i = 0; i < V::width; ++i)
        V::store_pairs(job.values + (column + i) * (pair_block / 2) + first / 2, pairs[i]);
    }
  }
}

// The next block of cached rows, on its way to the second-level cache while this one is worked on: a few rows at a
// time, in the order in which they lie in memory, so that the processor's own prefetching follows.
struct RowsAhead {
  const uint16_t *keys, *values;
  int64_t key_stride, value_stride, key_elements, value_elements;  // of a row, all groups
  int64_t rows, turns;                                             // how many, in how many calls
  int64_t turn = 0;

  void bring_some() {
    const int64_t end = rows * (turn + 1) / turns;
    for (int64_t row = rows * turn / turns; row < end; ++row) {
      bring(keys + row * key_stride, key_elements);
      bring(values + row * value_stride, value_elements);
    }
    ++turn;
  }
  static void bring(const uint16_t* row, int64_t elements) {
    for (int64_t i = 0; i < elements; i += 32) __builtin_prefetch(row + i, 0, 2);
  }
};

template <class T, class V, int blocks>
inline void attend_query_tiles(const PairAttentionJob& job, int64_t first, const uint16_t* keys, int64_t stride,
                               int rows, RowsAhead& ahead) {
  ahead.bring_some();
  score_tiles<T, V, blocks>(job, job.query + first * job.key_width / 2 * V::width, keys, stride);
  ahead.bring_some();
  typename V::Float keep[blocks];
  for (int b = 0; b < blocks; ++b) {
    const int64_t at = (first + b) * V::width;
    keep[b] = soften_pairs<V, blocks>(job, b, rows, job.maximum + at, job.denominator + at);
  }
  ahead.bring_some();
  add_tiles<T, V, blocks>(job, keep, job.output + first * job.value_width * V::width);
}

// Widths are multiples of 2 W. job.keys: [pair_block, D] scratch for a block whose last rows are not there.
template <class T, class V>
void attend_tiles(const PairAttentionJob& job, const AttentionRows& run) {
  const auto* keys = static_cast<const uint16_t*>(run.keys);
  const auto* values = static_cast<const uint16_t*>(run.values);
  T::begin();
  for (int64_t begin = 0; begin < run.rows; begin += pair_block) {
    const int rows = static_cast<int>(run.rows - begin < pair_block ? run.rows - begin : pair_block);
    const int64_t next = begin + rows, left = run.rows - next;
    RowsAhead ahead = {.keys = keys + next * run.key_stride,
                       .values = values + next * run.value_stride,
                       .key_stride = run.key_stride,
                       .value_stride = run.value_stride,
                       .key_elements = job.groups * job.key_width,
                       .value_elements = job.groups * job.value_width,
                       .rows = left < pair_block ? left : pair_block,
                       .turns = job.groups * ((job.blocks + 1) / 2) * 3};
    for (int64_t group = 0; group < job.groups; ++group) {
      transpose_values<V>(job, values + begin * run.value_stride + group * job.value_width, run.value_stride, rows);
      const uint16_t* group_keys = keys + begin * run.key_stride + group * job.key_width;
      int64_t stride = run.key_stride;
      if (rows < pair_block) {
        for (int row = 0; row < pair_block; ++row) {
          for (int64_t i = 0; i < job.key_width; ++i)
            job.keys[row * job.key_width + i] = row < rows ? group_keys[row * stride + i] : 0;
        }
        group_keys = job.keys;
        stride = job.key_width;
      }
      const int64_t first = group * job.blocks;
      int64_t block = 0;
      for (; block + 2 <= job.blocks; block += 2)
        attend_query_tiles<T, V, 2>(job, first + block, group_keys, stride, rows, ahead);
      if (block < job.blocks) attend_query_tiles<T, V, 1>(job, first + block, group_keys, stride, rows, ahead);
    }
  }
  T::end();
}

}  // namespace cepe::ops::cpu
