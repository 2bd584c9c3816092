// Products of bytes: rows of fours, which are broadcast, times 64 columns of fours, one of the two unsigned, the other
// signed. Sums are of integers, and exact.
// Bound: operations / the rate of the processor's product of fours (AVX512_VNNI: 64 multiply-adds an instruction, a
// cycle each on an AMD Zen 4). A step of 6 rows x 64 columns loads 10 registers for its 24 products.
#pragma once

#include "ops/cpu/kernels.h"

namespace cepe::ops::cpu {

inline constexpr int byte_columns = 64;

// What stands at the left is unsigned and at the right signed, or the other way round.
enum class Unsigned { left, right };

// For each vector of 64 columns: done(row, column, sums) with sums = starts[row] + left [rows, 4 fours] . right
// [fours, 64, 4]. `stride`, `right_stride`: bytes between rows, and between fours of the right. `ahead`, where it is
// not zero: bytes from there to what will be read later, which is fetched to the second-level cache.
template <class V, Unsigned which, int rows, class Done>
inline void multiply_bytes(const void* left, int64_t stride, const void* right, int64_t right_stride, int64_t fours,
                           const int32_t* starts, int64_t ahead, const Done& done) {
  constexpr int columns = V::byte_columns;
  constexpr bool left_unsigned = which == Unsigned::left;
  const auto* from = static_cast<const uint8_t*>(left);
  for (int first = 0; first < byte_columns; first += columns * V::width) {
    typename V::Int sums[rows][columns];
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < columns; ++c) sums[r][c] = V::set_int(starts ? starts[r] : 0);
    }
    const uint8_t* column = static_cast<const uint8_t*>(right) + int64_t{4} * first;
    for (int64_t i = 0; i < fours; ++i, column += right_stride) {
      typename V::Fours of_columns[columns];
      for (int c = 0; ahead != 0 && c < columns; ++c) __builtin_prefetch(column + ahead + 4 * c * V::width, 0, 2);
      for (int c = 0; c < columns; ++c)
        of_columns[c] = V::template load_fours<!left_unsigned>(column + int64_t{4} * c * V::width);
      for (int r = 0; r < rows; ++r) {
        const typename V::Fours of_row = V::template set_four<left_unsigned>(from + r * stride + 4 * i);
        for (int c = 0; c < columns; ++c) {
          if constexpr (left_unsigned)
            sums[r][c] = V::add_fours(sums[r][c], of_row, of_columns[c]);
          else
            sums[r][c] = V::add_fours(sums[r][c], of_columns[c], of_row);
        }
      }
    }
// Constant indices: sums stay in registers.
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 8
      for (int c = 0; c < columns; ++c) done(r, first + c * V::width, sums[r][c]);
    }
  }
}

// Calls of.template operator()<rows>(first) for all `count` rows, V::byte_rows together, then what is left.
template <class V, int rows = V::byte_rows, class Of>
inline void in_row_tiles(int64_t first, int64_t count, const Of& of) {
  for (; first + rows <= count; first += rows) of.template operator()<rows>(first);
  if constexpr (rows > 1) {
    if (first < count) in_row_tiles<V, rows - 1>(first, count, of);
  }
}

// In place of a matrix unit's tiles (tile_kernel.h): the vectors' products of bytes.
struct NoTiles {
  static void begin() {}
  static void end() {}
};

}  // namespace cepe::ops::cpu
