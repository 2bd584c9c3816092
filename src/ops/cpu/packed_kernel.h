// Product of a packed weight with a few rows, and its unpacking, over a vector type V.
//   y[n, o] = sum_b d[o, b] * sum_{i in b} (q[o, i] - 8) x[n, i] + (m[o, b] + 8 d[o, b]) * sum_{i in b} x[n, i]
// (q4_1; the other formats lack the second term). All in float32: what the unpacked product gives, up to rounding.
// Bound for a row or two: bytes of the weight / memory bandwidth; reached on the machine of docs/performance.md (a
// 4-bit weight costs a shift, a permutation and a multiply-add for 16 values with AVX-512). Beyond: multiply-adds /
// vector rate; 300 to 390 of 500 GFLOP/s there, by pairs 290 to 386 of 466 on an AMD Zen 4.
#pragma once

#include <type_traits>
#include <utility>

#include "ops/cpu/kernels.h"

namespace cepe::ops::cpu {

inline constexpr int block_inputs = 32;
template <class X>
inline constexpr int inputs_of = std::is_same_v<X, float> ? 1 : 2;  // an element of x
inline constexpr int prefetch_bytes = 4096;  // ahead of the reads: what memory delivers during its own latency

// A multiply-add takes four cycles and two start in each: eight sums that do not wait for one another keep both busy.
template <int rows>
inline constexpr int chains = rows >= 8 ? 1 : 8 / rows;

template <class V, int rows>
struct Sums {
  typename V::Float chain[chains<rows>][rows];

  Sums() {
    for (auto& sums : chain) {
      for (auto& sum : sums) sum = V::zero();
    }
  }
  void add(int which, typename V::Float q, const float* x) {
    auto& sums = chain[which % chains<rows>];
    for (int r = 0; r < rows; ++r) sums[r] = V::fma(q, V::set(x[r]), sums[r]);
  }
  template <class Pairs>
  void add_pair(int which, Pairs q, const uint32_t* x) {
    auto& sums = chain[which % chains<rows>];
    for (int r = 0; r < rows; ++r) sums[r] = V::add_products(sums[r], q, V::set_pair(x + r));
  }
  typename V::Float total(int row) const {
    typename V::Float sum = chain[0][row];
    for (int c = 1; c < chains<rows>; ++c) sum = V::add(sum, chain[c][row]);
    return sum;
  }
};

// Adds q . x over one block of 32 inputs for `rows` rows of x (inputs outermost) and V::width outputs.
template <class V, int rows>
inline void multiply_nibbles(const uint8_t* words, const float* x, Sums<V, rows>& sums) {
  for (int word = 0; word < 4; ++word) {
    const typename V::Words packed = V::load_words(words + word * tile_rows * 4);
    const float* from = x + word * 8 * rows;
    [&]<int... k>(std::integer_sequence<int, k...>) {
      (sums.add(k, V::template nibble<k>(packed), from + k * rows), ...);
    }
    (std::make_integer_sequence<int, 8>());
  }
}

template <class V, int rows>
inline void multiply_nibbles(const uint8_t* words, const uint32_t* x, Sums<V, rows>& sums) {
  for (int word = 0; word < 4; ++word) {
    const typename V::Words packed = V::load_words(words + word * tile_rows * 4);
    const uint32_t* from = x + word * 4 * rows;
    [&]<int... k>(std::integer_sequence<int, k...>) {
      (sums.add_pair(k, V::template nibble_pair<k>(packed), from + k * rows), ...);
    }
    (std::make_integer_sequence<int, 4>());
  }
}

template <class V, int rows>
inline void multiply_bytes(const uint8_t* bytes, int64_t inputs, const uint32_t* x, Sums<V, rows>& sums) {
  for (int64_t i = 0; i < inputs; i += 8, x += 4 * rows) {
    for (int k = 0; k < 4; ++k) {
      const uint8_t* first = bytes + (i + k) * tile_rows;
      sums.add_pair(k, V::byte_pair(first, first + 4 * tile_rows), x + k * rows);
    }
  }
}

template <class V, int rows>
inline void multiply_bytes(const uint8_t* bytes, int64_t inputs, const float* x, Sums<V, rows>& sums) {
  const int64_t whole = inputs / 8 * 8;
  for (int64_t i = 0; i < whole; i += 8) {
    for (int k = 0; k < 8; ++k) sums.add(k, V::load_int8(bytes + (i + k) * tile_rows), x + (i + k) * rows);
  }
  for (int64_t i = whole; i < inputs; ++i) sums.add(0, V::load_int8(bytes + i * tile_rows), x + i * rows);
}

template <bool has_minimum, bool nibbles>
inline constexpr int block_bytes = 32 * (has_minimum ? 2 : 1) + tile_rows*(nibbles ? 16 : 32);

// V::width outputs, the first being row `lane` of the tile, for one panel of x.
template <class V, int rows, bool has_minimum, bool nibbles, class X>
inline void multiply_blocks(const uint8_t* tile, int lane, int64_t blocks, const X* x, const float* x_sums,
                            typename V::Float (&outer)[rows]) {
  for (int64_t block = 0; block < blocks; ++block) {
    const auto* d_bits = reinterpret_cast<const uint16_t*>(tile) + lane;
    const uint8_t* quants = tile + 32 * (has_minimum ? 2 : 1);
    for (int ahead = 0; ahead < block_bytes<has_minimum, nibbles> && lane == 0; ahead += 64) {
      __builtin_prefetch(tile + prefetch_bytes + ahead, 0, 3);
    }
    Sums<V, rows> inner;
    if constexpr (nibbles) {
      multiply_nibbles<V, rows>(quants + lane * 4, x, inner);
    } else {
      multiply_bytes<V, rows>(quants + lane, block_inputs, x, inner);
    }
    const typename V::Float d = V::load_float16(d_bits);
    for (int r = 0; r < rows; ++r) outer[r] = V::fma(d, inner.total(r), outer[r]);
    if constexpr (has_minimum) {
      const typename V::Float centre = V::fma(V::set(8), d, V::load_float16(d_bits + tile_rows));
      for (int r = 0; r < rows; ++r) outer[r] = V::fma(centre, V::set(x_sums[r]), outer[r]);
    }
    tile += block_bytes<has_minimum, nibbles>;
    x += block_inputs / inputs_of<X> * rows;
    x_sums += rows;
  }
}

template <class V>
inline void store_outputs(float* to, typename V::Float value, int64_t count) {
  if (count >= V::width) return V::store(to, value);
  float lanes[V::width];
  V::store(lanes, value);
  for (int64_t i = 0; i < count; ++i) to[i] = lanes[i];
}

template <class V, PackedKind kind, int rows, class X>
inline void multiply_panel(const PackedProductOf<X>& product, int64_t tile, int64_t first_row) {
  const PackedMatrix& weight = product.weight;
  const uint8_t* data = weight.data + tile * weight.bytes_per_tile;
  const X* x = product.x + first_row * (weight.in_features / inputs_of<X>);
  for (int lane = 0; lane < tile_rows; lane += V::width) {
    const int64_t output = tile * tile_rows + lane;
    typename V::Float sums[rows];
    for (int r = 0; r < rows; ++r) sums[r] = V::zero();
    if constexpr (kind == PackedKind::int8_row) {
      Sums<V, rows> inner;
      multiply_bytes<V, rows>(data + lane, weight.in_features, x, inner);
      const typename V::Float scale = V::load(weight.scales + output);
      for (int r = 0; r < rows; ++r) sums[r] = V::mul(inner.total(r), scale);
    } else {
      const int64_t blocks = weight.in_features / block_inputs;
      const float* x_sums = product.x_sums + first_row * blocks;
      multiply_blocks<V, rows, kind == PackedKind::q4_1, kind != PackedKind::q8_0>(data, lane, blocks, x, x_sums, sums);
    }
    for (int r = 0; r < rows; ++r) {
      store_outputs<V>(product.y + (first_row + r) * weight.out_features + output, sums[r],
                       weight.out_features - output);
    }
  }
}

// All panels over one tile before the next: the tile is read from memory once.
template <class V, PackedKind kind, class X>
void multiply_packed(const PackedProductOf<X>& product, int64_t tile_begin, int64_t tile_end) {
  for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
    int64_t row = 0;
    for (; row + V::row_block <= product.rows; row += V::row_block) {
      multiply_panel<V, kind, V::row_block>(product, tile, row);
    }
    const int64_t left = product.rows - row;
    if constexpr (V::row_block > 4) {
      if (left & 4) multiply_panel<V, kind, 4>(product, tile, row), row += 4;
    }
    if constexpr (V::row_block > 2) {
      if (left & 2) multiply_panel<V, kind, 2>(product, tile, row), row += 2;
    }
    if (left & 1) multiply_panel<V, kind, 1>(product, tile, row);
  }
}

template <class V>
inline void store_unpacked(float* to, typename V::Float value) {
  V::store(to, value);
}
template <class V>
inline void store_unpacked(uint16_t* to, typename V::Float value) {
  V::store_bfloat16(to, value);
}

template <class V, class T, bool has_minimum, bool nibbles>
inline void unpack_block(const uint8_t* block, int lane, int64_t stride, T* to) {
  const auto* d_bits = reinterpret_cast<const uint16_t*>(block) + lane;
  const uint8_t* quants = block + 32 * (has_minimum ? 2 : 1);
  const typename V::Float d = V::load_float16(d_bits);
  typename V::Float centre = V::zero();
  if constexpr (has_minimum) centre = V::fma(V::set(8), d, V::load_float16(d_bits + tile_rows));
  if constexpr (nibbles) {
    for (int word = 0; word < 4; ++word) {
      const typename V::Words packed = V::load_words(quants + word * tile_rows * 4 + lane * 4);
      T* row = to + word * 8 * stride;
      const auto put = [&]<int k>() {
        store_unpacked<V>(row + k * stride, V::fma(V::template nibble<k>(packed), d, centre));
      };
      put.template operator()<0>();
      put.template operator()<1>();
      put.template operator()<2>();
      put.template operator()<3>();
      put.template operator()<4>();
      put.template operator()<5>();
      put.template operator()<6>();
      put.template operator()<7>();
    }
  } else {
    for (int i = 0; i < block_inputs; ++i) {
      store_unpacked<V>(to + i * stride, V::mul(V::load_int8(quants + i * tile_rows + lane), d));
    }
  }
}

template <class V, class T, PackedKind kind>
void unpack_columns(const PackedMatrix& weight, int64_t tile_begin, int64_t tile_end, int64_t stride, void* to) {
  for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
    const uint8_t* data = weight.data + tile * weight.bytes_per_tile;
    for (int lane = 0; lane < tile_rows; lane += V::width) {
      T* column = static_cast<T*>(to) + (tile - tile_begin) * tile_rows + lane;
      if constexpr (kind == PackedKind::int8_row) {
        const typename V::Float scale = V::load(weight.scales + tile * tile_rows + lane);
        for (int64_t i = 0; i < weight.in_features; ++i) {
          store_unpacked<V>(column + i * stride, V::mul(V::load_int8(data + i * tile_rows + lane), scale));
        }
      } else {
        constexpr bool has_minimum = kind == PackedKind::q4_1;
        constexpr bool nibbles = kind != PackedKind::q8_0;
        for (int64_t block = 0; block < weight.in_features / block_inputs; ++block) {
          unpack_block<V, T, has_minimum, nibbles>(data + block * block_bytes<has_minimum, nibbles>, lane, stride,
                                                   column + block * block_inputs * stride);
        }
      }
    }
  }
}

template <class V>
constexpr PackedPairKernel packed_pairs_of(bool fast) {
  using enum PackedKind;
  return {{multiply_packed<V, q4_0, uint32_t>, multiply_packed<V, q4_1, uint32_t>, multiply_packed<V, q8_0, uint32_t>,
           multiply_packed<V, int8_row, uint32_t>},
          V::row_block,
          fast};
}

}  // namespace cepe::ops::cpu
