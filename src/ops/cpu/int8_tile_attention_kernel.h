// Attention over keys and values in 8 bits by a matrix unit (AMX), of eight query rows a group and more: the products
// of int8_attention_kernel.h as tiles of 2 W query rows, W = 16; what is between them is the same. The scores of the
// next query rows are asked for with the sums of these, so that the unit works while the vectors add. Bound: what is
// between the products. Of 32 query rows and a block of 64 rows of width 64 the products take 16 instructions of 16
// cycles, 8 for a query row; the vectors some 60 instructions.
#pragma once

#include "ops/cpu/int8_attention_kernel.h"
#include "ops/cpu/tile_kernel.h"

namespace cepe::ops::cpu {

// sums [2 W, 64] of 2 W rows [2 W, 4 fours] and 64 columns [fours, columns, 4], `stride` of them from four to four.
template <class T, class V>
inline void multiply_byte_tiles(const void* rows, int64_t row_stride, const void* columns, int64_t stride,
                                int64_t fours, int32_t* sums) {
  const auto* above = static_cast<const unsigned char*>(rows);
  for (int64_t column = 0; column < byte_columns; column += 2 * V::width) {
    const uint32_t* left = static_cast<const uint32_t*>(columns) + column;
    int32_t* to = sums + column;
    int32_t* below = to + V::width * byte_columns;
    zero_sums<T>();
    multiply_tiles<T, V>(above, above + V::width * row_stride, row_stride, left, left + V::width, stride,
                         fours / V::width);
    T::template store<0>(to, byte_columns * 4);
    T::template store<1>(to + V::width, byte_columns * 4);
    T::template store<2>(below, byte_columns * 4);
    T::template store<3>(below + V::width, byte_columns * 4);
  }
}

// Where the kernel stands: a block, a group, the first of its query rows.
struct Int8Place {
  int64_t block, group, first;

  bool next(const Int8AttentionJob& job, int64_t blocks, int64_t rows) {
    first += rows;
    if (first < job.queries) return true;
    first = 0;
    if (++group < job.shape.groups) return true;
    group = 0;
    return ++block < blocks;
  }
};

template <class V, class Queries, class Weights>
void attend_int8_by_tiles(const Int8AttentionJob& job, const Int8Blocks& blocks) {
  constexpr int64_t worth_it = 8, rows = 2 * V::width;
  const Int8BlockShape& shape = job.shape;
  if (job.queries < worth_it || shape.key_width % (4 * V::width) != 0) return attend_int8<V>(job, blocks);
  if (blocks.count == 0) return;
  Int8Tile<rows> tile;
  __builtin_memset(tile.weights, 0, sizeof tile.weights);  // of rows beyond the last too
  alignas(64) int32_t sums[2][rows][byte_columns];
  const auto data_of = [&](const Int8Place& place) {
    return blocks.data[place.block] + place.group * shape.group_bytes();
  };
  const auto score = [&](const Int8Place& place, int32_t* to) {
    const int8_t* query = job.query + (place.group * job.queries + place.first) * shape.key_width;
    multiply_byte_tiles<Queries, V>(query, shape.key_width, data_of(place), int8_block, shape.key_width / 4, to);
  };
  Queries::begin();
  Int8Place place = {0, 0, 0};
  score(place, sums[0][0]);
  int which = 0;
  for (bool more = true; more; which = 1 - which) {
    const Int8GroupBlock block = group_block(shape, data_of(place), blocks.rows[place.block]);
    const int64_t left = job.queries - place.first;
    tile.row = place.group * job.queries + place.first;
    tile.count = left < rows ? left : rows;
    const uint8_t* ahead = place.first == 0 ? group_ahead(shape, blocks, place.block, place.group) : nullptr;
    const int64_t lines = ahead ? shape.group_bytes() / 64 / tile.count + 1 : 0;  // fetched with each row
    for (int64_t r = 0; r < tile.count; ++r) {
      const typename V::Int start = V::set_int(job.query_starts[tile.row + r]);
      typename V::Float largest = V::zero();
      for (int64_t i = 0; i < lines; ++i) __builtin_prefetch(ahead + (r * lines + i) * 64, 0, 2);
      for (int column = 0; column < byte_columns; column += V::width)
        put_scores<V>(block, tile, r, column, V::add_int(V::load_int(sums[which][r] + column), start), largest);
    }
    if (block.rows < int8_block) hide_absent_rows<V>(block, tile);
    join_maxima<V>(job, tile);
    weigh_scores<V>(job, tile);
    more = place.next(job, blocks.count, rows);
    for (int64_t column = 0; column < shape.value_width; column += byte_columns) {
      multiply_byte_tiles<Weights, V>(tile.weights, int8_block, block.values + 4 * column, shape.value_width,
                                      int8_block / 4, sums[which][0]);
      if (more && column + byte_columns == shape.value_width) score(place, sums[1 - which][0]);
      for (int64_t r = 0; r < tile.count; ++r) {
        for (int i = 0; i < byte_columns; i += V::width)
          add_to_output<V>(job, block, tile, r, column + i, V::load_int(sums[which][r] + i), tile.all_kept);
      }
    }
  }
  Queries::end();
}

}  // namespace cepe::ops::cpu
