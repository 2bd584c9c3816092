// Attention over keys and values in 8 bits (Int8Blocks of kernels.h), for any number of query rows. Queries are rounded
// to 8 bits, with a scale a row. Blocks of 64 rows of the context: scores, weights, values. Weights are 255 times the
// power of two of their distance to the largest of row and block, rounded to 8 bits; the denominator is the sum of
// these, so that what they weigh sums to 1. Blocks are joined by a running maximum (as arXiv 1805.02867).
// Bound: of few query rows bytes / memory bandwidth (1.06 an element of K and V; bfloat16 has 2); of many the products
// (byte_products.h), 135 of the 233 cycles that a query row takes for 64 rows of width 64. Figures:
// docs/performance.md.
#pragma once

#include "ops/cpu/byte_products.h"
#include "ops/cpu/kernels.h"

namespace cepe::ops::cpu {

inline constexpr float most_weight = 255, log2_of_most_weight = 7.9943534f;

// 2^x to 1e-4 of it, down to zero: what is rounded to 8 bits afterwards. 2^r for r in [0, 1) by a polynomial that is
// exact at both ends.
template <class V>
inline typename V::Float rough_power(typename V::Float x) {
  const typename V::Float r = V::fraction(x);
  typename V::Float p = V::set(0.0791f);
  p = V::fma(p, r, V::set(0.2249f));
  p = V::fma(p, r, V::set(0.6960f));
  return V::times_power_of_floor(V::fma(p, r, V::set(1.0f)), x);
}

// A block of one group.
struct Int8GroupBlock {
  const uint8_t* keys;
  const int8_t* values;
  const float *key_scales, *value_scales;
  int rows;
};

// Query rows of a group that meet a block together, and what is between scores and sums of them.
struct Int8Tile {
  static constexpr int64_t most_rows = 12;
  alignas(64) float scores[most_rows][int8_block];
  alignas(64) uint8_t weights[most_rows][int8_block];
  alignas(64) float highest[16] = {}, keep[16], share[16];
  int64_t row, count;   // the first of them, of [G, R]
  int64_t group_ahead;  // bytes to the group that is fetched meanwhile, by the first query rows alone; else zero

  int64_t ahead(int64_t first) const { return first == 0 ? group_ahead : 0; }
};

template <class V>
inline void score_bytes(const Int8AttentionJob& job, const Int8GroupBlock& block, Int8Tile& tile) {
  const int64_t width = job.shape.key_width;
  in_row_tiles<V>(0, tile.count, [&]<int rows>(int64_t first) {
    multiply_bytes<V, Unsigned::right, rows>(
        job.query + (tile.row + first) * width, width, block.keys, 4 * int8_block, width / 4,
        job.query_starts + tile.row + first, tile.ahead(first), [&](int r, int column, typename V::Int sums) {
          V::store(tile.scores[first + r] + column, V::mul(V::to_float(sums), V::load(block.key_scales + column)));
        });
  });
}

// The new maxima; what the old sums are to be multiplied by, and what those of this block.
template <class V>
inline void join_maxima(const Int8AttentionJob& job, const Int8GroupBlock& block, Int8Tile& tile) {
  using Float = typename V::Float;
  constexpr float none = -3e38f;
  const auto power = [](Float x) { return rough_power<V>(V::max(x, V::set(-200.0f))); };  // not of -infinity
  alignas(64) float maxima[16] = {};
  for (int64_t r = 0; r < tile.count; ++r) {
    float* scores = tile.scores[r];
    for (int i = block.rows; i < int8_block; ++i) scores[i] = none;
    Float highest = V::load(scores);
    for (int i = V::width; i < int8_block; i += V::width) highest = V::max(highest, V::load(scores + i));
    tile.highest[r] = V::largest(highest) * job.query_scales[tile.row + r];
    maxima[r] = job.maximum[tile.row + r];
  }
  for (int64_t r = 0; r < tile.count; r += V::width) {
    const Float before = V::load(maxima + r), found = V::load(tile.highest + r), highest = V::max(before, found);
    V::store(tile.keep + r, power(V::sub(before, highest)));
    V::store(tile.share + r, V::mul(power(V::sub(found, highest)), V::set(1 / most_weight)));
    V::store(maxima + r, highest);
  }
  for (int64_t r = 0; r < tile.count; ++r) job.maximum[tile.row + r] = maxima[r];
}

template <class V>
inline void weigh_scores(const Int8AttentionJob& job, Int8Tile& tile) {
  using Float = typename V::Float;
  for (int64_t r = 0; r < tile.count; ++r) {
    const Float scale = V::set(job.query_scales[tile.row + r]), base = V::set(log2_of_most_weight - tile.highest[r]);
    typename V::Int total = V::set_int(0);
    for (int first = 0; first < int8_block; first += 4 * V::width) {
      typename V::Int weights[4];
      for (int i = 0; i < 4; ++i) {
        const Float score = V::load(tile.scores[r] + first + i * V::width);
        weights[i] = V::to_int(rough_power<V>(V::fma(score, scale, base)));
        total = V::add_int(total, weights[i]);
      }
      V::store_bytes(tile.weights[r] + first, weights[0], weights[1], weights[2], weights[3]);
    }
    float* denominator = job.denominator + (tile.row + r) * 16;
    const Float kept = V::mul(V::load(denominator), V::set(tile.keep[r]));
    V::store(denominator, V::fma(V::to_float(total), V::set(tile.share[r]), kept));
  }
}

template <class V>
inline void add_weighted(const Int8AttentionJob& job, const Int8GroupBlock& block, const Int8Tile& tile) {
  const int64_t width = job.shape.value_width;
  for (int64_t column = 0; column < width; column += byte_columns) {
    float* output = job.output + tile.row * width + column;
    const float* scales = block.value_scales + column;
    in_row_tiles<V>(0, tile.count, [&]<int rows>(int64_t first) {
      multiply_bytes<V, Unsigned::left, rows>(
          tile.weights[first], int8_block, block.values + 4 * column, 4 * width, int8_block / 4, nullptr,
          tile.ahead(first), [&](int r, int i, typename V::Int sums) {
            float* to = output + (first + r) * width + i;
            const typename V::Float share = V::mul(V::load(scales + i), V::set(tile.share[first + r]));
            V::store(to, V::fma(V::to_float(sums), share, V::mul(V::load(to), V::set(tile.keep[first + r]))));
          });
    });
  }
}

template <class V>
void attend_int8(const Int8AttentionJob& job, const Int8Blocks& blocks) {
  const int64_t bytes = job.shape.group_bytes();
  const uint8_t* group_data = blocks.data;
  for (int64_t i = 0; i < blocks.count; ++i) {
    for (int64_t group = 0; group < job.shape.groups; ++group, group_data += bytes) {
      const auto* scales = reinterpret_cast<const float*>(group_data + job.shape.scales());
      const Int8GroupBlock block = {group_data, reinterpret_cast<const int8_t*>(group_data + job.shape.values()),
                                    scales, scales + int8_block, blocks.rows[i]};
      for (int64_t first = 0; first < job.queries; first += Int8Tile::most_rows) {
        const int64_t left = job.queries - first;
        Int8Tile tile;
        tile.row = group * job.queries + first;
        tile.count = left < Int8Tile::most_rows ? left : Int8Tile::most_rows;
        tile.group_ahead = first == 0 ? 2 * bytes : 0;
        score_bytes<V>(job, block, tile);
        join_maxima<V>(job, block, tile);
        weigh_scores<V>(job, tile);
        add_weighted<V>(job, block, tile);
      }
    }
  }
}

}  // namespace cepe::ops::cpu
