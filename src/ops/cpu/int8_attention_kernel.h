// Attention over keys and values in 8 bits (Int8Blocks of kernels.h), for any number of query rows. Queries are rounded
// to 8 bits, with a scale a row. Blocks of 64 rows of the context: scores, weights, values. Weights are 255 times the
// power of two of their distance to the largest of row and block, rounded to 8 bits; the denominator is the sum of
// these, so that what they weigh sums to 1. Blocks are joined by a running maximum (as arXiv 1805.02867).
// Bound: of few query rows bytes / memory bandwidth (1.06 an element of K and V; bfloat16 has 2); of many the products
// (byte_products.h), 135 of the 214 cycles that a query row takes for 64 rows of width 64. Figures:
// docs/performance.md.
#pragma once

#include "ops/cpu/byte_products.h"
#include "ops/cpu/kernels.h"

namespace cepe::ops::cpu {

inline constexpr float most_weight = 255, log2_of_most_weight = 7.9943534f;

// 2^x to 1e-4 of it, down to 2^-126: what is rounded to 8 bits afterwards. 2^r for r in [0, 1) by a polynomial that is
// exact at both ends.
template <class V>
inline typename V::Float rough_power(typename V::Float x) {
  x = V::max(x, V::set(-126));
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
template <int rows>
struct Int8Tile {
  static constexpr int64_t lanes = 16, most_rows = rows, sixteens = (rows + lanes - 1) / lanes,
                           padded = sixteens * lanes;
  alignas(64) float scores[rows][int8_block];
  alignas(64) uint8_t weights[rows][int8_block];
  alignas(64) float largest[sixteens][lanes][lanes];  // of each row's scores, a lane's
  alignas(64) float highest[padded], keep[padded], share[padded];
  bool all_kept;        // every `keep` is one
  int64_t row, count;   // the first of them, of [G, R]
  int64_t group_ahead;  // bytes to the group that is fetched meanwhile, by the first query rows alone; else zero

  int64_t ahead(int64_t first) const { return first == 0 ? group_ahead : 0; }
  float* largest_of(int64_t r) { return largest[r / lanes][r % lanes]; }
};

// A vector of a row's scores from `column` on, and the largest so far.
template <class V, class Tile>
inline void put_scores(const Int8GroupBlock& block, Tile& tile, int64_t row, int column, typename V::Int sums,
                       typename V::Float& largest) {
  const typename V::Float scores = V::mul(V::to_float(sums), V::load(block.key_scales + column));
  V::store(tile.scores[row] + column, scores);
  largest = column == 0 ? scores : V::max(largest, scores);
  if (column == int8_block - V::width) V::store(tile.largest_of(row), largest);
}

// Scores of rows that are not there are as small as they get.
template <class V, class Tile>
inline void hide_absent_rows(const Int8GroupBlock& block, Tile& tile) {
  constexpr float none = -3e38f;
  for (int64_t r = 0; r < tile.count; ++r) {
    float* scores = tile.scores[r];
    for (int i = block.rows; i < int8_block; ++i) scores[i] = none;
    typename V::Float largest = V::load(scores);
    for (int i = V::width; i < int8_block; i += V::width) largest = V::max(largest, V::load(scores + i));
    V::store(tile.largest_of(r), largest);
  }
}

template <class V, class Tile>
inline void score_bytes(const Int8AttentionJob& job, const Int8GroupBlock& block, Tile& tile) {
  const int64_t width = job.shape.key_width;
  in_row_tiles<V>(0, tile.count, [&]<int rows>(int64_t first) {
    typename V::Float largest[rows];
    multiply_bytes<V, Unsigned::right, rows>(job.query + (tile.row + first) * width, width, block.keys, 4 * int8_block,
                                             width / 4, job.query_starts + tile.row + first, tile.ahead(first),
                                             [&](int r, int column, typename V::Int sums) {
                                               put_scores<V>(block, tile, first + r, column, sums, largest[r]);
                                             });
  });
  if (block.rows < int8_block) hide_absent_rows<V>(block, tile);
}

// Each row's highest score.
template <class V, class Tile>
inline void find_highest(Tile& tile) {
  if constexpr (requires { V::largest_of(tile.largest[0]); }) {
    for (int64_t i = 0; i * Tile::lanes < tile.count; ++i)
      V::store(tile.highest + i * Tile::lanes, V::largest_of(tile.largest[i]));
  } else {
    for (int64_t r = 0; r < tile.count; ++r) tile.highest[r] = V::largest(V::load(tile.largest_of(r)));
  }
}

// The new maxima; what the old sums are to be multiplied by, and what those of this block.
template <class V, class Tile>
inline void join_maxima(const Int8AttentionJob& job, Tile& tile) {
  using Float = typename V::Float;
  alignas(64) float maxima[Tile::padded] = {};
  find_highest<V>(tile);
  tile.all_kept = true;
  for (int64_t r = tile.count; r < Tile::padded; ++r) tile.highest[r] = 0;
  for (int64_t r = 0; r < tile.count; ++r) {
    tile.highest[r] *= job.query_scales[tile.row + r];
    maxima[r] = job.maximum[tile.row + r];
    tile.all_kept &= maxima[r] >= tile.highest[r];
  }
  for (int64_t r = 0; r < tile.count; r += V::width) {
    const Float before = V::load(maxima + r), found = V::load(tile.highest + r), highest = V::max(before, found);
    V::store(tile.keep + r, rough_power<V>(V::sub(before, highest)));
    V::store(tile.share + r, V::mul(rough_power<V>(V::sub(found, highest)), V::set(1 / most_weight)));
    V::store(maxima + r, highest);
  }
  for (int64_t r = 0; r < tile.count; ++r) job.maximum[tile.row + r] = maxima[r];
}

// Weights of 4 W scores, and their sums over fours or lanes.
template <class V>
inline typename V::Int weigh(const float* scores, float scale, float base, uint8_t* weights) {
  if constexpr (requires { V::weigh(scores, scale, base, weights); }) {
    return V::weigh(scores, scale, base, weights);
  } else {
    typename V::Int found[4], total = V::set_int(0);
    for (int i = 0; i < 4; ++i) {
      const typename V::Float score = V::load(scores + i * V::width);
      found[i] = V::to_int(rough_power<V>(V::fma(score, V::set(scale), V::set(base))));
      total = V::add_int(total, found[i]);
    }
    V::store_bytes(weights, found[0], found[1], found[2], found[3]);
    return total;
  }
}

template <class V, class Tile>
inline void weigh_scores(const Int8AttentionJob& job, Tile& tile) {
  for (int64_t r = 0; r < tile.count; ++r) {
    const float scale = job.query_scales[tile.row + r], base = log2_of_most_weight - tile.highest[r];
    typename V::Int total = V::set_int(0);
    for (int first = 0; first < int8_block; first += 4 * V::width)
      total = V::add_int(total, weigh<V>(tile.scores[r] + first, scale, base, tile.weights[r] + first));
    float* denominator = job.denominator + (tile.row + r) * 16;
    const typename V::Float kept = V::mul(V::load(denominator), V::set(tile.keep[r]));
    V::store(denominator, V::fma(V::to_float(total), V::set(tile.share[r]), kept));
  }
}

// A vector of a row's output from `column` on.
template <class V, class Tile>
inline void add_to_output(const Int8AttentionJob& job, const Int8GroupBlock& block, const Tile& tile, int64_t row,
                          int64_t column, typename V::Int sums, bool all_kept) {
  float* to = job.output + (tile.row + row) * job.shape.value_width + column;
  const typename V::Float share = V::mul(V::load(block.value_scales + column), V::set(tile.share[row]));
  const typename V::Float before = V::load(to), kept = all_kept ? before : V::mul(before, V::set(tile.keep[row]));
  V::store(to, V::fma(V::to_float(sums), share, kept));
}

template <class V, bool all_kept, class Tile>
inline void add_weighted(const Int8AttentionJob& job, const Int8GroupBlock& block, const Tile& tile) {
  const int64_t width = job.shape.value_width;
  for (int64_t column = 0; column < width; column += byte_columns) {
    in_row_tiles<V>(0, tile.count, [&]<int rows>(int64_t first) {
      multiply_bytes<V, Unsigned::left, rows>(
          tile.weights[first], int8_block, block.values + 4 * column, 4 * width, int8_block / 4, nullptr,
          tile.ahead(first), [&](int r, int i, typename V::Int sums) {
            add_to_output<V>(job, block, tile, first + r, column + i, sums, all_kept);
          });
    });
  }
}

inline Int8GroupBlock group_block(const Int8BlockShape& shape, const uint8_t* data, int rows) {
  const auto* scales = reinterpret_cast<const float*>(data + shape.scales());
  return {data, reinterpret_cast<const int8_t*>(data + shape.values()), scales, scales + int8_block, rows};
}

// The group that is read as the second one after this; null where there is none.
inline const uint8_t* group_ahead(const Int8BlockShape& shape, const Int8Blocks& blocks, int64_t block, int64_t group) {
  for (group += 2; group >= shape.groups; group -= shape.groups) ++block;
  return block < blocks.count ? blocks.data[block] + group * shape.group_bytes() : nullptr;
}

template <class V>
void attend_int8(const Int8AttentionJob& job, const Int8Blocks& blocks) {
  Int8Tile<12> tile;
  for (int64_t i = 0; i < blocks.count; ++i) {
    for (int64_t group = 0; group < job.shape.groups; ++group) {
      const uint8_t* data = blocks.data[i] + group * job.shape.group_bytes();
      const uint8_t* ahead = group_ahead(job.shape, blocks, i, group);
      const Int8GroupBlock block = group_block(job.shape, data, blocks.rows[i]);
      for (int64_t first = 0; first < job.queries; first += tile.most_rows) {
        const int64_t left = job.queries - first;
        tile.row = group * job.queries + first;
        tile.count = left < tile.most_rows ? left : tile.most_rows;
        tile.group_ahead = first == 0 && ahead ? ahead - data : 0;
        score_bytes<V>(job, block, tile);
        join_maxima<V>(job, tile);
        weigh_scores<V>(job, tile);
        if (tile.all_kept)
          add_weighted<V, true>(job, block, tile);
        else
          add_weighted<V, false>(job, block, tile);
      }
    }
  }
}

}  // namespace cepe::ops::cpu
