// Attention of many query rows a group over consecutive cached rows in bfloat16, by products of pairs: an instruction
// multiplies two neighbouring bfloat16 elements a lane and adds both to float32 (AVX512_BF16). Lanes are query rows, so
// that the softmax runs lane by lane and no sum over lanes is needed: keys and values are broadcast, a pair at a time.
// Queries and probabilities are rounded to bfloat16. Blocks of pair_block cached rows: scores, one update of the
// running maximum (as arXiv 1805.02867), values; a block's values are interleaved once for all query rows. Bound:
// operations / the rate of these products. Of the instructions of a block of 64 rows of width 64, 4 in 5 are products,
// the others the softmax's. Figures: docs/performance.md.
#pragma once

#include "ops/cpu/exponential.h"
#include "ops/cpu/kernels.h"

namespace cepe::ops::cpu {

// scores [row, block, lane] = query . key, for 8 rows at a time; beyond the last row some row stands in.
template <class V, int blocks>
inline void score_pairs(const PairAttentionJob& job, const uint32_t* query, const uint16_t* keys, int64_t stride,
                        int rows) {
  constexpr int together = 8;
  const int64_t pairs = job.key_width / 2;
  for (int first = 0; first < rows; first += together) {
    const uint16_t* row[together];
    for (int k = 0; k < together; ++k) row[k] = keys + (first + k < rows ? first + k : rows - 1) * stride;
    typename V::Float sums[together][blocks];
    for (int k = 0; k < together; ++k) {
      for (int b = 0; b < blocks; ++b) sums[k][b] = V::zero();
    }
    for (int64_t i = 0; i < pairs; ++i) {
      typename V::Pairs asked[blocks];
      for (int b = 0; b < blocks; ++b) asked[b] = V::load_pairs(query + (b * pairs + i) * V::width);
      for (int k = 0; k < together; ++k) {
        const typename V::Pairs key = V::set_pair(row[k] + 2 * i);
        for (int b = 0; b < blocks; ++b) sums[k][b] = V::add_products(sums[k][b], asked[b], key);
      }
    }
    for (int k = 0; k < together; ++k) {
      for (int b = 0; b < blocks; ++b) V::store(job.scores + ((first + k) * blocks + b) * V::width, sums[k][b]);
    }
  }
}

// 2^x to 4e-6 of it, which bfloat16 does not see; zero from about -126 on.
template <class V>
inline typename V::Float coarse_power_of_two(typename V::Float x) {
  using Float = typename V::Float;
  const Float n = V::round(x), r = V::sub(x, n);
  Float p = V::set(0.009618129f);  // (ln 2)^i / i!
  p = V::fma(p, r, V::set(0.05550411f));
  p = V::fma(p, r, V::set(0.2402265f));
  p = V::fma(p, r, V::set(0.6931472f));
  p = V::fma(p, r, V::set(1.0f));
  return V::scaled_by_power_of_two(p, n);
}

// Scores -> pairs of probabilities of neighbouring rows [pair, block, lane], zero beyond the last row; returns what the
// old sums are to be multiplied by. The scale is above zero.
template <class V, int blocks>
inline typename V::Float soften_pairs(const PairAttentionJob& job, int block, int rows, float* maximum,
                                      float* denominator) {
  using Float = typename V::Float;
  constexpr float log2_of_e = 1.44269504088896341f;
  const auto score = [&](int row) { return V::load(job.scores + (row * blocks + block) * V::width); };
  const Float before = V::load(maximum);
  Float highest = score(0);
  for (int row = 1; row < rows; ++row) highest = V::max(highest, score(row));
  highest = V::max(before, V::mul(highest, V::set(job.scale)));
  // Scores of -infinity alone (every product overflowed) leave weights of zero instead of NaN.
  const Float shift = V::max(highest, V::set(-3e38f));
  const Float scale = V::set(job.scale * log2_of_e), base = V::mul(shift, V::set(-log2_of_e));
  Float total = V::zero();
  for (int row = 0; row < pair_block; row += 2) {
    Float weights[2] = {V::zero(), V::zero()};
    for (int i = 0; i < 2 && row + i < rows; ++i) {
      weights[i] = coarse_power_of_two<V>(V::fma(score(row + i), scale, base));
    }
    total = V::add(total, V::add(weights[0], weights[1]));
    V::store_pairs(job.weights + (row / 2 * blocks + block) * V::width, V::narrow_pairs(weights[0], weights[1]));
  }
  const Float keep = exponential<V>(V::sub(before, shift));
  V::store(maximum, highest);
  V::store(denominator, V::fma(V::load(denominator), keep, total));
  return keep;
}

// output [block, column, lane] = output * keep + sum over pairs of rows of weights * values.
template <class V, int blocks>
inline void add_pairs(const PairAttentionJob& job, const typename V::Float (&keep)[blocks], float* output) {
  constexpr int together = 8;
  const int64_t width = job.value_width;
  for (int64_t column = 0; column < width; column += together) {
    typename V::Float sums[together][blocks];
    for (int i = 0; i < together; ++i) {
      for (int b = 0; b < blocks; ++b) {
        sums[i][b] = V::mul(V::load(output + (b * width + column + i) * V::width), keep[b]);
      }
    }
    for (int pair = 0; pair < pair_block / 2; ++pair) {
      typename V::Pairs weights[blocks];
      for (int b = 0; b < blocks; ++b) weights[b] = V::load_pairs(job.weights + (pair * blocks + b) * V::width);
      const uint32_t* values = job.values + pair * width + column;
      for (int i = 0; i < together; ++i) {
        const typename V::Pairs value = V::set_pair(values + i);
        for (int b = 0; b < blocks; ++b) sums[i][b] = V::add_products(sums[i][b], weights[b], value);
      }
    }
    for (int i = 0; i < together; ++i) {
      for (int b = 0; b < blocks; ++b) V::store(output + (b * width + column + i) * V::width, sums[i][b]);
    }
  }
}

template <class V, int blocks>
inline void attend_query_blocks(const PairAttentionJob& job, int64_t first, const uint16_t* keys, int64_t stride,
                                int rows) {
  score_pairs<V, blocks>(job, job.query + first * job.key_width / 2 * V::width, keys, stride, rows);
  typename V::Float keep[blocks];
  for (int b = 0; b < blocks; ++b) {
    const int64_t at = (first + b) * V::width;
    keep[b] = soften_pairs<V, blocks>(job, b, rows, job.maximum + at, job.denominator + at);
  }
  add_pairs<V, blocks>(job, keep, job.output + first * job.value_width * V::width);
}

// The block's values as pairs of neighbouring rows [pair, column]; rows that are not there are zeros.
template <class V>
inline void interleave_values(const PairAttentionJob& job, const uint16_t* values, int64_t stride, int rows) {
  for (int row = 0; row < pair_block; row += 2) {
    uint32_t* to = job.values + row / 2 * job.value_width;
    for (int64_t i = 0; i < job.value_width; i += V::width) {
      const uint16_t* first = row < rows ? values + row * stride + i : nullptr;
      const uint16_t* second = row + 1 < rows ? first + stride : nullptr;
      V::store_pairs(to + i, V::interleave(first, second));
    }
  }
}

template <class V>
void attend_pairs(const PairAttentionJob& job, const AttentionRows& run) {
  const auto* keys = static_cast<const uint16_t*>(run.keys);
  const auto* values = static_cast<const uint16_t*>(run.values);
  for (int64_t begin = 0; begin < run.rows; begin += pair_block) {
    const int rows = static_cast<int>(run.rows - begin < pair_block ? run.rows - begin : pair_block);
    for (int64_t group = 0; group < job.groups; ++group) {
      interleave_values<V>(job, values + begin * run.value_stride + group * job.value_width, run.value_stride, rows);
      const uint16_t* group_keys = keys + begin * run.key_stride + group * job.key_width;
      const int64_t first = group * job.blocks;
      int64_t block = 0;
      for (; block + 3 <= job.blocks; block += 3) {
        attend_query_blocks<V, 3>(job, first + block, group_keys, run.key_stride, rows);
      }
      if (block + 2 == job.blocks) attend_query_blocks<V, 2>(job, first + block, group_keys, run.key_stride, rows);
      if (block + 1 == job.blocks) attend_query_blocks<V, 1>(job, first + block, group_keys, run.key_stride, rows);
    }
  }
}

}  // namespace cepe::ops::cpu
