// Attention of many query rows a group over consecutive cached rows in bfloat16, by products of pairs: an instruction
// multiplies two neighbouring bfloat16 elements a lane and adds both to float32 (AVX512_BF16). Lanes are query rows, so
// that the softmax runs lane by lane and no sum over lanes is needed: keys and values are broadcast, a pair at a time.
// Queries and probabilities are rounded to bfloat16 (power_table.h). Blocks of pair_block cached rows: scores, one
// update of the running maximum (as arXiv 1805.02867), values; a block's values are interleaved once for all query
// rows. Bound: operations / the rate of these products. Of the instructions of a block of 64 rows of width 64, 9 in 10
// are products, the others the softmax's. Figures: docs/performance.md.
#pragma once

#include "ops/cpu/exponential.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/power_table.h"

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

// The largest of each lane among rows of scores `apart` elements from one another; there is one.
template <class V>
inline typename V::Float highest_scores(const float* scores, int64_t apart, int rows) {
  constexpr int chains = 4;  // a maximum takes four cycles, and two start in each
  const typename V::Float first = V::load(scores);
  typename V::Float highest[chains] = {first, first, first, first};
  int row = 0;
  for (; row + chains <= rows; row += chains) {
    for (int i = 0; i < chains; ++i) highest[i] = V::max(highest[i], V::load(scores + (row + i) * apart));
  }
  for (; row < rows; ++row) highest[0] = V::max(highest[0], V::load(scores + row * apart));
  return V::max(V::max(highest[0], highest[1]), V::max(highest[2], highest[3]));
}

// Scores -> pairs of probabilities of neighbouring rows [pair, block, lane], zero beyond the last row; returns what the
// old sums are to be multiplied by. Probabilities are as power_table.h has them, and the denominator is the sum of
// these, so that what they weigh sums to 1. The scale is above zero.
template <class V, int blocks>
inline typename V::Float soften_pairs(const PairAttentionJob& job, int block, int rows, float* maximum,
                                      float* denominator) {
  using Float = typename V::Float;
  using Pairs = typename V::Pairs;
  constexpr float steps_of_e = 1.44269504088896341f * power_steps, step = 0.693147180559945309f / power_steps;
  constexpr int64_t apart = int64_t{blocks} * V::width;
  const float* scores = job.scores + block * V::width;
  uint32_t* weights = job.weights + block * V::width;
  const Float scale = V::set(job.scale * steps_of_e), down = V::set(-job.scale * steps_of_e);
  const Float before = V::load(maximum);
  const Float highest = V::max(before, V::round(V::mul(highest_scores<V>(scores, apart, rows), scale)));
  // Scores of -infinity alone (every product overflowed) leave the least of weights instead of NaN.
  const Float shift = V::max(highest, V::set(-3e38f)), base = V::add(V::set(power_bias), shift);
  // The order of the operands lets NaN through: the instruction returns its second one.
  const auto biased = [&](int row) {
    return V::min(V::set(power_least), V::fma(V::load(scores + row * apart), down, base));
  };
  constexpr uint32_t none = 0, one_and_one = 0x3f803f80;
  const Pairs ones = V::set_pair(&one_and_one);
  Float totals[2] = {V::zero(), V::zero()};  // two sums that do not wait for one another
  int row = 0;
  for (; row + 4 <= rows; row += 4) {
    for (int i = 0; i < 2; ++i) {
      const Pairs pairs = V::power_pairs(biased(row + 2 * i), biased(row + 2 * i + 1));
      totals[i] = V::add_products(totals[i], pairs, ones);
      V::store_pairs(weights + (row / 2 + i) * apart, pairs);
    }
  }
  for (; row < rows; row += 2) {
    const bool both = row + 1 < rows;
    const Pairs pairs = V::power_pairs(biased(row), both ? biased(row + 1) : V::set(power_none));
    totals[0] = V::add_products(totals[0], pairs, ones);
    V::store_pairs(weights + row / 2 * apart, pairs);
  }
  for (; row < pair_block; row += 2) V::store_pairs(weights + row / 2 * apart, V::set_pair(&none));
  const Float keep = exponential<V>(V::mul(V::sub(before, shift), V::set(step)));
  V::store(maximum, highest);
  V::store(denominator, V::fma(V::load(denominator), keep, V::add(totals[0], totals[1])));
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
