// The tiles of tile_kernel.h and the three kernels of int8 in plain C++: what the matrix unit is
// tested against.
#pragma once

#include <cstdint>
#include <cstring>

#include "ops/cpu/vector_portable.h"

namespace cepe::ops::cpu {

struct TilesPortable {
  static constexpr int width = VectorPortable::width;
  struct Tile {
    uint32_t at[width][width];
  };
  static inline thread_local Tile tiles[8];

  static void begin() {}
  static void end() {}
  template <int tile>
  static void zero() {
    tiles[tile] = {};
  }
  template <int tile>
  static void load(const void* from, int64_t stride) {
    for (int row = 0; row < width; ++row)
      std::memcpy(tiles[tile].at[row], static_cast<const unsigned char*>(from) + row * stride, width * 4);
  }
  template <int tile>
  static void store(void* to, int64_t stride) {
    for (int row = 0; row < width; ++row)
      std::memcpy(static_cast<unsigned char*>(to) + row * stride, tiles[tile].at[row], width * 4);
  }
  // sums [row, column] += rows [row, pair] . columns [pair, column].
  template <int sums, int rows, int columns>
  static void multiply() {
    for (int row = 0; row < width; ++row) {
      auto sum = VectorPortable::load(reinterpret_cast<const float*>(tiles[sums].at[row]));
      for (int pair = 0; pair < width; ++pair) {
        sum = VectorPortable::add_products(sum, VectorPortable::set_pair(&tiles[rows].at[row][pair]),
                                           VectorPortable::load_pairs(tiles[columns].at[pair]));
      }
      VectorPortable::store(reinterpret_cast<float*>(tiles[sums].at[row]), sum);
    }
  }
};

template <class Row, class Column>
struct TilesPortableBytes : TilesPortable {
  // sums [row, column] += rows [row, four] . columns [four, column].
  template <int sums, int rows, int columns>
  static void multiply() {
    const auto byte = []<class Byte>(uint32_t four, int which, Byte) {
      return int{static_cast<Byte>(four >> (8 * which))};
    };
    for (int row = 0; row < width; ++row) {
      for (int four = 0; four < width; ++four) {
        const uint32_t left = tiles[rows].at[row][four];
        for (int column = 0; column < width; ++column) {
          const uint32_t right = tiles[columns].at[four][column];
          for (int i = 0; i < 4; ++i)
            tiles[sums].at[row][column] += static_cast<uint32_t>(byte(left, i, Row{}) * byte(right, i, Column{}));
        }
      }
    }
  }
};

using TilesPortableInt8 = TilesPortableBytes<int8_t, int8_t>;
using TilesPortableMixed = TilesPortableBytes<int8_t, uint8_t>;
using TilesPortableWeights = TilesPortableBytes<uint8_t, int8_t>;

}  // namespace cepe::ops::cpu
