// Attention of R query rows a group over consecutive cached rows, over a vector type V and an element type T.
// Blocks of 32 rows: scores, one running-maximum update (as arXiv 1805.02867), values; the next block is prefetched
// row by row while this one is worked on. Bound: bytes of keys and values / memory bandwidth, 0.88 of it measured for
// R = 3 (docs/performance.md); arithmetic is 2 R multiply-adds an element, so it takes over from R of about 6 where
// keys are values (280 of 500 GFLOP/s for R = 9, 370 for R = 144).
#pragma once

#include "ops/cpu/exponential.h"
#include "ops/cpu/kernels.h"

namespace cepe::ops::cpu {

template <class V, class T>
inline void prefetch_row(const T* row, int64_t width) {
  for (int64_t i = 0; i < width; i += static_cast<int64_t>(64 / sizeof(T))) __builtin_prefetch(row + i, 0, 3);
}

// Rows of one group in a block, and the rows that will stand in their place next (null where they are on the way).
template <class T>
struct BlockRows {
  const T* data;
  const T* ahead;
  int64_t stride;
  int64_t width;
  int rows;
};

// scores[q * attention_block + k] = query q . key k for `queries` queries and four rows (`stride` elements apart).
template <class V, class T, int queries>
inline void score_rows(const float* query, const T* key, int64_t stride, int64_t width, float* scores) {
  using Float = typename V::Float;
  Float sums[queries][4];
  for (int q = 0; q < queries; ++q) {
    for (int k = 0; k < 4; ++k) sums[q][k] = V::zero();
  }
  for (int64_t i = 0; i < width; i += 2 * V::width) {
    for (int k = 0; k < 4; ++k) {
      Float first, second;
      V::load_pair(key + k * stride + i, first, second);
      for (int q = 0; q < queries; ++q) {
        sums[q][k] = V::fma(V::load(query + q * width + i), first, sums[q][k]);
        sums[q][k] = V::fma(V::load(query + q * width + i + V::width), second, sums[q][k]);
      }
    }
  }
  for (int q = 0; q < queries; ++q) {
    V::store_sums(sums[q][0], sums[q][1], sums[q][2], sums[q][3], scores + q * attention_block);
  }
}

template <class V, class T, int queries>
inline void score_block(const float* query, const BlockRows<T>& keys, float* scores) {
  int row = 0;
  for (; row + 4 <= keys.rows; row += 4) {
    for (int k = 0; keys.ahead && k < 4; ++k) prefetch_row<V>(keys.ahead + (row + k) * keys.stride, keys.width);
    score_rows<V, T, queries>(query, keys.data + row * keys.stride, keys.stride, keys.width, scores + row);
  }
  // The last rows one by one: a stride of zero reads the same row four times.
  for (; row < keys.rows; ++row) {
    float same[queries * attention_block];
    score_rows<V, T, queries>(query, keys.data + row * keys.stride, 0, keys.width, same);
    for (int q = 0; q < queries; ++q) scores[q * attention_block + row] = same[q * attention_block];
  }
}

// output[q] = output[q] * keep[q] + sum over rows of weights[q * attention_block + row] * value row.
template <class V, class T, int queries, int pairs>
inline void add_values_at(float* output, const float* weights, const float* keep, const BlockRows<T>& values,
                          int64_t at) {
  using Float = typename V::Float;
  constexpr int registers = 2 * pairs;
  Float sums[queries][registers];
  for (int q = 0; q < queries; ++q) {
    for (int p = 0; p < registers; ++p) {
      sums[q][p] = V::mul(V::load(output + q * values.width + at + p * V::width), V::set(keep[q]));
    }
  }
  for (int row = 0; row < values.rows; ++row) {
    if (values.ahead) prefetch_row<V>(values.ahead + row * values.stride + at, registers * V::width);
    Float value[registers];
    for (int p = 0; p < pairs; ++p) {
      V::load_pair(values.data + row * values.stride + at + p * 2 * V::width, value[2 * p], value[2 * p + 1]);
    }
    for (int q = 0; q < queries; ++q) {
      const Float weight = V::set(weights[q * attention_block + row]);
      for (int p = 0; p < registers; ++p) sums[q][p] = V::fma(weight, value[p], sums[q][p]);
    }
  }
  for (int q = 0; q < queries; ++q) {
    for (int p = 0; p < registers; ++p) V::store(output + q * values.width + at + p * V::width, sums[q][p]);
  }
}

template <class V, class T, int queries>
inline void add_values(float* output, const float* weights, const float* keep, const BlockRows<T>& values) {
  constexpr int64_t step = 2 * V::width;
  int64_t at = 0;
  for (; at + step * V::value_pairs <= values.width; at += step * V::value_pairs) {
    add_values_at<V, T, queries, V::value_pairs>(output, weights, keep, values, at);
  }
  for (; at < values.width; at += step) add_values_at<V, T, queries, 1>(output, weights, keep, values, at);
}

// Scores -> exp(scale * score - maximum), the running maximum and denominator; returns what the old sums are to be
// multiplied by. Scores beyond `rows` are set to weigh nothing.
template <class V>
inline float soften(float* scores, int rows, float scale, float& maximum, float& denominator) {
  using Float = typename V::Float;
  for (int i = rows; i < attention_block; ++i) scores[i] = -__builtin_inff();
  Float highest = V::set(-__builtin_inff());
  for (int i = 0; i < attention_block; i += V::width) {
    const Float scaled = i < rows ? V::mul(V::load(scores + i), V::set(scale)) : V::set(-__builtin_inff());
    V::store(scores + i, scaled);
    highest = V::max(highest, scaled);
  }
  for (int i = rows; i < attention_block; ++i) scores[i] = -__builtin_inff();
  float largest = V::largest(highest);
  if (!(largest > maximum)) largest = maximum;
  const float keep = maximum == largest ? 1.0f : __builtin_expf(maximum - largest);
  // A largest score of -infinity (every product overflowed) leaves weights of zero instead of NaN.
  const Float shift = V::set(largest == -__builtin_inff() ? 0.0f : largest);
  Float total = V::zero();
  for (int i = 0; i < attention_block; i += V::width) {
    const Float weight = exponential<V>(V::sub(V::load(scores + i), shift));
    V::store(scores + i, weight);
    total = V::add(total, weight);
  }
  maximum = largest;
  denominator = denominator * keep + V::sum(total);
  return keep;
}

template <class V, class T, int queries>
inline void attend_queries(const AttentionJob& job, int64_t at, const BlockRows<T>& keys, const BlockRows<T>& values) {
  float keep[queries];
  score_block<V, T, queries>(job.query + at * job.key_width, keys, job.scores);
  for (int q = 0; q < queries; ++q) {
    keep[q] =
        soften<V>(job.scores + q * attention_block, keys.rows, job.scale, job.maximum[at + q], job.denominator[at + q]);
  }
  add_values<V, T, queries>(job.output + at * job.value_width, job.scores, keep, values);
}

template <class V, class T>
inline void attend_group(const AttentionJob& job, int64_t group, BlockRows<T> keys, BlockRows<T> values) {
  // Query rows in panels as equal as they come: 9 as 3 + 3 + 3, not 4 + 4 + 1.
  const int64_t panels = (job.queries + V::query_block - 1) / V::query_block;
  for (int64_t panel = 0, first = 0; panel < panels; ++panel) {
    const int64_t count = (job.queries - first) / (panels - panel);
    const int64_t at = group * job.queries + first;
    if (count == 1) attend_queries<V, T, 1>(job, at, keys, values);
    if (count == 2) attend_queries<V, T, 2>(job, at, keys, values);
    if constexpr (V::query_block >= 3) {
      if (count == 3) attend_queries<V, T, 3>(job, at, keys, values);
    }
    if constexpr (V::query_block >= 4) {
      if (count == 4) attend_queries<V, T, 4>(job, at, keys, values);
    }
    first += count;
    keys.ahead = values.ahead = nullptr;  // the first panel has asked for them
  }
}

template <class V, class T>
void attend_rows(const AttentionJob& job, const AttentionRows& run) {
  const T* keys = static_cast<const T*>(run.keys);
  const T* values = static_cast<const T*>(run.values);
  for (int64_t begin = 0; begin < run.rows; begin += attention_block) {
    const int64_t next = begin + attention_block;
    const bool last = next >= run.rows;
    const int rows = static_cast<int>(last ? run.rows - begin : attention_block);
    const T* ahead_keys = last ? static_cast<const T*>(run.next_keys) : keys + next * run.key_stride;
    const T* ahead_values = last ? static_cast<const T*>(run.next_values) : values + next * run.value_stride;
    if (keys == values) ahead_values = nullptr;
    for (int64_t group = 0; group < job.groups; ++group) {
      const int64_t key_at = group * job.key_width;
      const int64_t value_at = group * job.value_width;
      attend_group<V, T>(job, group,
                         {keys + begin * run.key_stride + key_at, ahead_keys ? ahead_keys + key_at : nullptr,
                          run.key_stride, job.key_width, rows},
                         {values + begin * run.value_stride + value_at,
                          ahead_values ? ahead_values + value_at : nullptr, run.value_stride, job.value_width, rows});
    }
  }
}

}  // namespace cepe::ops::cpu
