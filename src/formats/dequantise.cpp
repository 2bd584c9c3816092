// Block types to float32, each formula that of ggml-quants.c (dequantize_row_*), with its order of operations: the
// results are equal bit for bit.
#include <cstring>

#include "base/error.h"
#include "base/half.h"
#include "formats/checkpoint.h"
#include "formats/dtype.h"

namespace cepe::formats {
namespace {

uint8_t byte_at(const std::byte* bytes, size_t i) { return std::to_integer<uint8_t>(bytes[i]); }

template <class T>
T load(const std::byte* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

float half_at(const std::byte* bytes) { return base::float16_to_float(load<uint16_t>(bytes)); }

// 18 bytes: scale (half), 16 bytes of nibbles; value i in the low, value i + 16 in the high nibble of byte i.
void q4_0(const std::byte* block, float* out) {
  const float scale = half_at(block);
  for (size_t i = 0; i < 16; ++i) {
    const int packed = byte_at(block, 2 + i);
    out[i] = static_cast<float>((packed & 0xf) - 8) * scale;
    out[i + 16] = static_cast<float>((packed >> 4) - 8) * scale;
  }
}

// 20 bytes: scale, minimum (halves), nibbles as q4_0.
void q4_1(const std::byte* block, float* out) {
  const float scale = half_at(block);
  const float minimum = half_at(block + 2);
  for (size_t i = 0; i < 16; ++i) {
    const int packed = byte_at(block, 4 + i);
    out[i] = static_cast<float>(packed & 0xf) * scale + minimum;
    out[i + 16] = static_cast<float>(packed >> 4) * scale + minimum;
  }
}

// The 5-bit value i of 32: four bits in the nibbles, the fifth in bit i of `high`.
int five_bits(const std::byte* nibbles, uint32_t high, size_t i) {
  const int packed = byte_at(nibbles, i % 16);
  const int low = i < 16 ? packed & 0xf : packed >> 4;
  return low | static_cast<int>((high >> i) & 1u) << 4;
}

// 22 bytes: scale (half), 4 bytes of fifth bits, nibbles.
void q5_0(const std::byte* block, float* out) {
  const float scale = half_at(block);
  const auto high = load<uint32_t>(block + 2);
  for (size_t i = 0; i < 32; ++i) out[i] = static_cast<float>(five_bits(block + 6, high, i) - 16) * scale;
}

// 24 bytes: scale, minimum (halves), fifth bits, nibbles.
void q5_1(const std::byte* block, float* out) {
  const float scale = half_at(block);
  const float minimum = half_at(block + 2);
  const auto high = load<uint32_t>(block + 4);
  for (size_t i = 0; i < 32; ++i) out[i] = static_cast<float>(five_bits(block + 8, high, i)) * scale + minimum;
}

// 34 bytes: scale (half), 32 signed bytes.
void q8_0(const std::byte* block, float* out) {
  const float scale = half_at(block);
  for (size_t i = 0; i < 32; ++i) out[i] = static_cast<float>(load<int8_t>(block + 2 + i)) * scale;
}

// 84 bytes: 16 scales (low nibble) and minima (high nibble), 64 bytes of 2-bit values, scale and minimum of those
// (halves). Each half of 128 values takes 32 bytes; four shifts of 32 values, 16 a scale.
void q2_k(const std::byte* block, float* out) {
  const float scale = half_at(block + 80);
  const float minimum = half_at(block + 82);
  for (size_t i = 0; i < 256; ++i) {
    const size_t half = i / 128;
    const size_t shift = i % 128 / 32 * 2;
    const int scales = byte_at(block, i / 16);
    const int value = byte_at(block + 16, half * 32 + i % 32) >> shift & 3;
    out[i] = scale * static_cast<float>(scales & 0xf) * static_cast<float>(value) -
             minimum * static_cast<float>(scales >> 4);
  }
}

// The 6-bit scale i of 16 in q3_k's 12 bytes: low nibbles in bytes 0-7, high pairs of bits in bytes 8-11.
int q3_k_scale(const std::byte* scales, size_t i) {
  const int low = i < 8 ? byte_at(scales, i) & 0xf : byte_at(scales, i - 8) >> 4;
  const int high = byte_at(scales, 8 + i % 4) >> (i / 4 * 2) & 3;
  return (low | high << 4) - 32;
}

// 110 bytes: 32 bytes of third bits, 64 bytes of 2-bit values as q2_k, 12 bytes of scales, scale of those (half).
void q3_k(const std::byte* block, float* out) {
  const float scale = half_at(block + 108);
  for (size_t i = 0; i < 256; ++i) {
    const size_t half = i / 128;
    const size_t row = i / 32;  // third bit: bit `row` of byte i % 32; clear means minus 4
    const int low = byte_at(block + 32, half * 32 + i % 32) >> (row % 4 * 2) & 3;
    const int value = low - (byte_at(block, i % 32) >> row & 1 ? 0 : 4);
    out[i] = scale * static_cast<float>(q3_k_scale(block + 96, i / 16)) * static_cast<float>(value);
  }
}

struct ScaleAndMinimum {
  int scale;
  int minimum;
};

// The pair i of 8 of 6-bit numbers in 12 bytes (ggml-quants.c, get_scale_min_k4).
ScaleAndMinimum k4_pair(const std::byte* scales, size_t i) {
  if (i < 4) return {byte_at(scales, i) & 63, byte_at(scales, i + 4) & 63};
  return {(byte_at(scales, i + 4) & 0xf) | (byte_at(scales, i - 4) >> 6) << 4,
          (byte_at(scales, i + 4) >> 4) | (byte_at(scales, i) >> 6) << 4};
}

// The nibble of value i where 64 values share 32 bytes: low nibbles first.
int k_nibble(const std::byte* nibbles, size_t i) {
  const int packed = byte_at(nibbles, i / 64 * 32 + i % 32);
  return i % 64 < 32 ? packed & 0xf : packed >> 4;
}

// 144 bytes: scale, minimum (halves), 12 bytes of 8 scales and minima, 128 bytes of nibbles.
void q4_k(const std::byte* block, float* out) {
  const float scale = half_at(block);
  const float minimum = half_at(block + 2);
  for (size_t row = 0; row < 8; ++row) {
    const ScaleAndMinimum pair = k4_pair(block + 4, row);
    const float row_scale = scale * static_cast<float>(pair.scale);
    const float row_minimum = minimum * static_cast<float>(pair.minimum);
    for (size_t i = row * 32; i < row * 32 + 32; ++i) {
      out[i] = row_scale * static_cast<float>(k_nibble(block + 16, i)) - row_minimum;
    }
  }
}

// 176 bytes: as q4_k with 32 bytes of fifth bits (bit `row` of byte i % 32) before the nibbles.
void q5_k(const std::byte* block, float* out) {
  const float scale = half_at(block);
  const float minimum = half_at(block + 2);
  for (size_t row = 0; row < 8; ++row) {
    const ScaleAndMinimum pair = k4_pair(block + 4, row);
    const float row_scale = scale * static_cast<float>(pair.scale);
    const float row_minimum = minimum * static_cast<float>(pair.minimum);
    for (size_t i = row * 32; i < row * 32 + 32; ++i) {
      const int fifth = (byte_at(block + 16, i % 32) >> row & 1) << 4;
      out[i] = row_scale * static_cast<float>(k_nibble(block + 48, i) + fifth) - row_minimum;
    }
  }
}

// 210 bytes: 128 bytes of low nibbles (64 a half), 64 bytes of high pairs (32 a half), 16 signed scales, their scale.
void q6_k(const std::byte* block, float* out) {
  const float scale = half_at(block + 208);
  for (size_t i = 0; i < 256; ++i) {
    const size_t half = i / 128;
    const size_t row = i % 128 / 32;  // 0, 1: low nibbles of both 32 bytes; 2, 3: high nibbles
    const int packed = byte_at(block, half * 64 + row % 2 * 32 + i % 32);
    const int low = row < 2 ? packed & 0xf : packed >> 4;
    const int high = byte_at(block + 128, half * 32 + i % 32) >> (row * 2) & 3;
    const int value = (low | high << 4) - 32;
    out[i] = scale * static_cast<float>(load<int8_t>(block + 192 + i / 16)) * static_cast<float>(value);
  }
}

template <class Block>
void each_block(const TensorView& view, std::span<float> out, Block block) {
  const auto values = static_cast<size_t>(block_values(view.type));
  const auto bytes = static_cast<size_t>(block_bytes(view.type));
  for (size_t i = 0; i * values < out.size(); ++i) block(view.bytes.data() + i * bytes, out.data() + i * values);
}

}  // namespace

void to_float(const TensorView& view, std::span<float> out) {
  const auto count = checked_count(view.shape);
  const auto bytes = checked_bytes(view.type, view.shape);
  if (!bytes || static_cast<uint64_t>(*bytes) != view.bytes.size() || static_cast<uint64_t>(*count) != out.size()) {
    throw base::Error(base::ErrorCode::invalid_argument, "to_float: " + std::to_string(view.bytes.size()) +
                                                             " bytes and room for " + std::to_string(out.size()) +
                                                             " values do not fit " + std::string(name_of(view.type)) +
                                                             " " + shape_text(view.shape));
  }
  using B = const std::byte*;
  switch (view.type) {
    case DType::float64:
      return each_block(view, out, [](B b, float* o) { *o = static_cast<float>(load<double>(b)); });
    case DType::float32:
      if (!out.empty()) std::memcpy(out.data(), view.bytes.data(), view.bytes.size());
      return;
    case DType::float16:
      return each_block(view, out, [](B b, float* o) { *o = half_at(b); });
    case DType::bfloat16:
      return each_block(view, out, [](B b, float* o) { *o = base::bfloat16_to_float(load<uint16_t>(b)); });
    case DType::q4_0:
      return each_block(view, out, q4_0);
    case DType::q4_1:
      return each_block(view, out, q4_1);
    case DType::q5_0:
      return each_block(view, out, q5_0);
    case DType::q5_1:
      return each_block(view, out, q5_1);
    case DType::q8_0:
      return each_block(view, out, q8_0);
    case DType::q2_k:
      return each_block(view, out, q2_k);
    case DType::q3_k:
      return each_block(view, out, q3_k);
    case DType::q4_k:
      return each_block(view, out, q4_k);
    case DType::q5_k:
      return each_block(view, out, q5_k);
    case DType::q6_k:
      return each_block(view, out, q6_k);
    default:
      throw base::Error(base::ErrorCode::unsupported,
                        "to_float: " + std::string(name_of(view.type)) + " values are no floating-point numbers");
  }
}

}  // namespace cepe::formats
