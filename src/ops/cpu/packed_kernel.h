// Product of a packed weight with a few rows, and its unpacking, over a vector type V.
//   y[n, o] = sum_b d[o, b] * sum_{i in b} (q[o, i] - 8) x[n, i] + (m[o, b] + 8 d[o, b]) * sum_{i in b} x[n, i]
// (q4_1; the other formats lack the second term). All in float32: what the unpacked product gives, up to rounding.
// Bound: bytes of the weight / memory bandwidth. One row of 4-bit weights costs a shift, a permutation and a
// multiply-add for 16 weights (8 bytes) with AVX-512, about 1.5 cycles: 2.7 bytes a cycle and core, twice what memory
// gives.
#pragma once

#include "ops/cpu/kernels.h"

namespace cepe::ops::cpu {

inline constexpr int block_inputs = 32;

// Sums over one block, or over all inputs of int8_row: inner[r] += q . x[r] for `rows` rows of x and V::width outputs.
template <class V, int rows>
inline void multiply_nibbles(const uint8_t* words, const float* x, typename V::Float (&inner)[rows]) {
  // Two chains for a single row: one alone waits for itself.
  typename V::Float other[rows];
  for (int r = 0; r < rows; ++r) other[r] = V::zero();
  for (int word = 0; word < 4; ++word) {
    const typename V::Words packed = V::load_words(words + word * tile_rows * 4);
    const float* from = x + word * 8 * rows;
    const auto even = [&]<int k>() {
      const typename V::Float q = V::template nibble<k>(packed);
      for (int r = 0; r < rows; ++r) inner[r] = V::fma(q, V::set(from[k * rows + r]), inner[r]);
    };
    const auto odd = [&]<int k>() {
      const typename V::Float q = V::template nibble<k>(packed);
      typename V::Float(&sums)[rows] = rows == 1 ? other : inner;
      for (int r = 0; r < rows; ++r) sums[r] = V::fma(q, V::set(from[k * rows + r]), sums[r]);
    };
    even.template operator()<0>();
    odd.template operator()<1>();
    even.template operator()<2>();
    odd.template operator()<3>();
    even.template operator()<4>();
    odd.template operator()<5>();
    even.template operator()<6>();
    odd.template operator()<7>();
  }
  if (rows == 1) inner[0] = V::add(inner[0], other[0]);
}

template <class V, int rows>
inline void multiply_bytes(const uint8_t* bytes, int64_t inputs, const float* x, typename V::Float (&inner)[rows]) {
  typename V::Float other = V::zero();
  int64_t i = 0;
  if (rows == 1) {
    for (; i + 2 <= inputs; i += 2) {
      inner[0] = V::fma(V::load_int8(bytes + i * tile_rows), V::set(x[i]), inner[0]);
      other = V::fma(V::load_int8(bytes + (i + 1) * tile_rows), V::set(x[i + 1]), other);
    }
    inner[0] = V::add(inner[0], other);
  }
  for (; i < inputs; ++i) {
    const typename V::Float q = V::load_int8(bytes + i * tile_rows);
    for (int r = 0; r < rows; ++r) inner[r] = V::fma(q, V::set(x[i * rows + r]), inner[r]);
  }
}

template <bool has_minimum, bool nibbles>
inline constexpr int block_bytes = 32 * (has_minimum ? 2 : 1) + tile_rows*(nibbles ? 16 : 32);

// V::width outputs, the first being row `lane` of the tile, for one panel of x.
template <class V, int rows, bool has_minimum, bool nibbles>
inline void multiply_blocks(const uint8_t* tile, int lane, int64_t blocks, const float* x, const float* x_sums,
                            typename V::Float (&outer)[rows]) {
  for (int64_t block = 0; block < blocks; ++block) {
    const auto* d_bits = reinterpret_cast<const uint16_t*>(tile) + lane;
    const uint8_t* quants = tile + 32 * (has_minimum ? 2 : 1);
    typename V::Float inner[rows];
    for (int r = 0; r < rows; ++r) inner[r] = V::zero();
    if constexpr (nibbles) {
      multiply_nibbles<V, rows>(quants + lane * 4, x, inner);
    } else {
      multiply_bytes<V, rows>(quants + lane, block_inputs, x, inner);
    }
    const typename V::Float d = V::load_float16(d_bits);
    for (int r = 0; r < rows; ++r) outer[r] = V::fma(d, inner[r], outer[r]);
    if constexpr (has_minimum) {
      const typename V::Float centre = V::fma(V::set(8), d, V::load_float16(d_bits + tile_rows));
      for (int r = 0; r < rows; ++r) outer[r] = V::fma(centre, V::set(x_sums[r]), outer[r]);
    }
    tile += block_bytes<has_minimum, nibbles>;
    x += block_inputs * rows;
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

template <class V, PackedKind kind, int rows>
inline void multiply_panel(const PackedProduct& product, int64_t tile, int64_t first_row) {
  const PackedMatrix& weight = product.weight;
  const uint8_t* data = weight.data + tile * weight.bytes_per_tile;
  const float* x = product.x + first_row * weight.in_features;
  for (int lane = 0; lane < tile_rows; lane += V::width) {
    const int64_t output = tile * tile_rows + lane;
    typename V::Float sums[rows];
    for (int r = 0; r < rows; ++r) sums[r] = V::zero();
    if constexpr (kind == PackedKind::int8_row) {
      multiply_bytes<V, rows>(data + lane, weight.in_features, x, sums);
      const typename V::Float scale = V::load(weight.scales + output);
      for (int r = 0; r < rows; ++r) sums[r] = V::mul(sums[r], scale);
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
template <class V, PackedKind kind>
void multiply_packed(const PackedProduct& product, int64_t tile_begin, int64_t tile_end) {
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

}  // namespace cepe::ops::cpu
