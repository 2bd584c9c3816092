#include "ops/packed_weight.h"

#include <ATen/EmptyTensor.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/half.h"
#include "ops/cpu/kernels.h"
#include "ops/flat_weight.h"
#include "ops/mixed_linear.h"

namespace cepe::ops {
namespace {

constexpr int64_t pass_rows = 64;  // rows of x in one pass over the weight: 150 kB at width 576, a part of L2
constexpr int64_t scratch_values = int64_t{1} << 19;  // of an unpacked piece: 1 MB of bfloat16, it stays in cache
constexpr int64_t packed_bytes_a_thread = int64_t{48} << 10;  // less work than this is not worth waking a thread for

[[noreturn]] void refuse_packed(const std::string& message) {
  throw base::Error(base::ErrorCode::invalid_argument, "packed weight: " + message);
}

bool has_minimum(PackedFormat format) { return format == PackedFormat::q4_1; }
bool is_nibbles(PackedFormat format) { return format == PackedFormat::q4_0 || format == PackedFormat::q4_1; }
// Bytes of one block of one row, in the file and in the kernels' layout alike.
int64_t block_bytes(PackedFormat format) { return (has_minimum(format) ? 4 : 2) + (is_nibbles(format) ? 16 : 32); }
int64_t tiles_of(int64_t out_features) { return (out_features + cpu::tile_rows - 1) / cpu::tile_rows; }

int64_t bytes_per_tile(PackedFormat format, int64_t in_features) {
  if (format == PackedFormat::int8_row) return in_features * cpu::tile_rows;
  return in_features / block_inputs * block_bytes(format) * cpu::tile_rows;
}

// One row of a tile's block: where its scales and values stand (the layout is told in ops/cpu/kernels.h).
struct TileBlock {
  std::byte* data;
  PackedFormat format;

  std::byte* scale(int64_t lane) const { return data + 2 * lane; }
  std::byte* minimum(int64_t lane) const { return data + 2 * (cpu::tile_rows + lane); }
  std::byte* values() const { return data + int64_t{has_minimum(format) ? 4 : 2} * cpu::tile_rows; }
  // The byte that holds nibbles `input` and `input + 1` (input even).
  std::byte* nibbles(int64_t lane, int64_t input) const {
    return values() + (input / 8 * cpu::tile_rows + lane) * 4 + input % 8 / 2;
  }
  std::byte* byte(int64_t lane, int64_t input) const { return values() + input * cpu::tile_rows + lane; }
};

std::byte nibble_of(const std::byte* quants, int64_t input) {
  return input < 16 ? quants[input] & std::byte{15} : quants[input - 16] >> 4;
}

void put_block(const TileBlock& to, int64_t lane, const std::byte* block) {
  std::memcpy(to.scale(lane), block, 2);
  if (has_minimum(to.format)) std::memcpy(to.minimum(lane), block + 2, 2);
  const std::byte* quants = block + (has_minimum(to.format) ? 4 : 2);
  if (is_nibbles(to.format)) {
    for (int64_t i = 0; i < block_inputs; i += 2) {
      *to.nibbles(lane, i) = nibble_of(quants, i) | (nibble_of(quants, i + 1) << 4);
    }
  } else {
    for (int64_t i = 0; i < block_inputs; ++i) *to.byte(lane, i) = quants[i];
  }
}

float read_half(const std::byte* from) {
  uint16_t bits;
  std::memcpy(&bits, from, 2);
  return base::float16_to_float(bits);
}

// 32 values of one row.
void read_block(const TileBlock& from, int64_t lane, float* to) {
  const float d = read_half(from.scale(lane));
  for (int64_t i = 0; i < block_inputs; ++i) {
    if (!is_nibbles(from.format)) {
      to[i] = static_cast<float>(static_cast<int8_t>(*from.byte(lane, i))) * d;
      continue;
    }
    const auto pair = static_cast<int>(*from.nibbles(lane, i & ~int64_t{1}));
    const int q = (i & 1) ? pair >> 4 : pair & 15;
    to[i] = has_minimum(from.format) ? static_cast<float>(q) * d + read_half(from.minimum(lane))
                                     : static_cast<float>(q - 8) * d;
  }
}

// Where the rows of a weight stand.
class PackedRows {
 public:
  explicit PackedRows(const PackedWeight& weight)
      : data_(reinterpret_cast<std::byte*>(weight.data.data_ptr<uint8_t>())),
        format_(weight.format),
        tile_bytes_(bytes_per_tile(weight.format, weight.in_features)) {}

  std::byte* tile(int64_t row) const { return data_ + row / cpu::tile_rows * tile_bytes_; }
  TileBlock block(int64_t row, int64_t block) const {
    return {tile(row) + block * block_bytes(format_) * cpu::tile_rows, format_};
  }

 private:
  std::byte* data_;
  PackedFormat format_;
  int64_t tile_bytes_;
};

void read_row(const PackedWeight& weight, int64_t row, float* to) {
  const PackedRows rows(weight);
  const int64_t lane = row % cpu::tile_rows;
  if (weight.format == PackedFormat::int8_row) {
    const std::byte* tile = rows.tile(row);
    const float scale = weight.scales.const_data_ptr<float>()[row];
    for (int64_t i = 0; i < weight.in_features; ++i) {
      to[i] = static_cast<float>(static_cast<int8_t>(tile[i * cpu::tile_rows + lane])) * scale;
    }
    return;
  }
  for (int64_t block = 0; block < weight.in_features / block_inputs; ++block) {
    read_block(rows.block(row, block), lane, to + block * block_inputs);
  }
}

void copy_row(const PackedWeight& from, int64_t from_row, const PackedWeight& to, int64_t to_row) {
  const PackedRows from_rows(from), to_rows(to);
  const int64_t from_lane = from_row % cpu::tile_rows;
  const int64_t to_lane = to_row % cpu::tile_rows;
  if (from.format == PackedFormat::int8_row) {
    const std::byte* source = from_rows.tile(from_row) + from_lane;
    std::byte* target = to_rows.tile(to_row) + to_lane;
    for (int64_t i = 0; i < from.in_features * cpu::tile_rows; i += cpu::tile_rows) target[i] = source[i];
    return;
  }
  for (int64_t block = 0; block < from.in_features / block_inputs; ++block) {
    const TileBlock source = from_rows.block(from_row, block);
    const TileBlock target = to_rows.block(to_row, block);
    std::memcpy(target.scale(to_lane), source.scale(from_lane), 2);
    if (has_minimum(from.format)) std::memcpy(target.minimum(to_lane), source.minimum(from_lane), 2);
    const int64_t unit = is_nibbles(from.format) ? 4 : 1;
    const int64_t values = int64_t{is_nibbles(from.format) ? 4 : 32} * cpu::tile_rows * unit;
    for (int64_t i = 0; i < values; i += cpu::tile_rows * unit) {
      std::memcpy(target.values() + i + to_lane * unit, source.values() + i + from_lane * unit, unit);
    }
  }
}

PackedWeight empty_weight(PackedFormat format, int64_t out_features, int64_t in_features) {
  const int64_t bytes = tiles_of(out_features) * bytes_per_tile(format, in_features);
  return {format, out_features, in_features, at::zeros({bytes}, at::kByte), {}};
}

cpu::PackedMatrix matrix_of(const PackedWeight& weight) {
  return {weight.data.const_data_ptr<uint8_t>(),
          weight.scales.defined() ? weight.scales.const_data_ptr<float>() : nullptr, weight.out_features,
          weight.in_features, bytes_per_tile(weight.format, weight.in_features)};
}

// Scales padded to whole tiles, which the kernels read.
at::Tensor padded_scales(const at::Tensor& scales) {
  at::Tensor padded = at::zeros({tiles_of(scales.size(0)) * cpu::tile_rows}, at::kFloat);
  padded.narrow(0, 0, scales.size(0)).copy_(scales);
  return padded;
}

float sum_of_block(const float* x) {
  float partial[8] = {};
  for (int64_t i = 0; i < block_inputs; ++i) partial[i % 8] += x[i];
  return ((partial[0] + partial[1]) + (partial[2] + partial[3])) +
         ((partial[4] + partial[5]) + (partial[6] + partial[7]));
}

// x [N, in] as panels of rows, inputs outermost (a single row is one as it stands), and the same for the sums of 32
// inputs.
void lay_out_panels(const float* x, int64_t rows, int64_t in_features, int64_t row_block, float* panels, float* sums) {
  const int64_t blocks = in_features / block_inputs;
  for (int64_t row = 0; row < rows; row += row_block) {
    while (row + row_block > rows) row_block /= 2;
    for (int64_t r = 0; r < row_block; ++r) {
      const float* from = x + (row + r) * in_features;
      float* panel = panels + row * in_features + r;
      float* panel_sums = sums + row * blocks + r;
      for (int64_t i = 0; i < in_features && rows > 1; ++i) panel[i * row_block] = from[i];
      for (int64_t block = 0; block < blocks; ++block) panel_sums[block * row_block] = sum_of_block(from + block * 32);
    }
  }
}

// A buffer of this thread that only grows.
template <class T>
T* scratch(int64_t values) {
  thread_local std::vector<T> buffer;
  if (static_cast<int64_t>(buffer.size()) < values) buffer.resize(values);
  return buffer.data();
}

// From how many rows on the weight is unpacked for LibTorch's dense product (docs/performance.md has the figures).
// With AVX-512 the vector kernels beat its float32 product at any count, its bfloat16 product below about 64 rows.
int64_t dense_rows(at::ScalarType type) {
  switch (cpu::level()) {
    case cpu::Level::portable:
      return 16;
    case cpu::Level::avx2:
      return 32;
    case cpu::Level::avx512:
      break;
  }
  return type == at::kFloat ? std::numeric_limits<int64_t>::max() : 64;
}

// One pass over the weight for at most pass_rows rows: x [rows, in] to y [rows, out].
void multiply_pass(const float* x, int64_t rows, const PackedWeight& weight, float* y) {
  const cpu::Kernels& kernels = cpu::kernels();
  const int64_t in = weight.in_features;
  float* sums = scratch<float>(rows * (in + in / block_inputs));
  float* panels = sums + rows * (in / block_inputs);
  lay_out_panels(x, rows, in, kernels.row_block, panels, sums);
  const cpu::PackedProduct product{matrix_of(weight), rows == 1 ? x : panels, sums, rows, y};
  const auto multiply = kernels.multiply[static_cast<int>(weight.format)];
  const int64_t work = std::max<int64_t>(1, product.weight.bytes_per_tile * rows);
  at::parallel_for(0, tiles_of(weight.out_features), std::max<int64_t>(1, packed_bytes_a_thread / work),
                   [&](int64_t begin, int64_t end) { multiply(product, begin, end); });
}

// Rows x [count, in] in bfloat16 as one panel of pairs (PackedProductOf), and the sums of 32 inputs of each.
void lay_out_pairs(const uint16_t* x, int64_t count, int64_t in_features, uint32_t* panel, float* sums) {
  for (int64_t r = 0; r < count; ++r, x += in_features) {
    uint32_t* to = panel + r;
    for (int64_t i = 0; i < in_features; i += 8) {
      for (int64_t k = 0; k < 4; ++k, to += count) *to = x[i + k] | uint32_t{x[i + k + 4]} << 16;
    }
    for (int64_t block = 0; block < in_features / block_inputs; ++block) {
      float wide[block_inputs];
      for (int64_t i = 0; i < block_inputs; ++i) wide[i] = base::bfloat16_to_float(x[block * block_inputs + i]);
      sums[block * count + r] = sum_of_block(wide);
    }
  }
}

at::Tensor multiply_packed(const at::Tensor& x, const PackedWeight& weight) {
  at::Tensor y(at::detail::empty_cpu({x.size(0), weight.out_features}, at::kFloat));
  for (int64_t row = 0; row < x.size(0); row += pass_rows) {
    multiply_pass(x.const_data_ptr<float>() + row * weight.in_features, std::min(pass_rows, x.size(0) - row), weight,
                  y.mutable_data_ptr<float>() + row * weight.out_features);
  }
  return y;
}

bool takes_pairs(const at::Tensor& x, const PackedWeight& weight) {
  constexpr int64_t fewest = 8, most = 191;  // fewer wait for memory; more are a dense product's (docs/performance.md)
  return x.scalar_type() == at::kBFloat16 && x.size(0) >= fewest && x.size(0) <= most && weight.in_features > 0 &&
         weight.in_features % 8 == 0;
}

// Dense products over pieces of the weight, unpacked as columns [in, piece] into one buffer of this thread.
at::Tensor multiply_unpacked(const at::Tensor& x, const PackedWeight& weight) {
  const at::ScalarType type = x.scalar_type();
  const cpu::Kernels& kernels = cpu::kernels();
  const int kind = static_cast<int>(weight.format);
  const auto unpack_piece = type == at::kFloat ? kernels.unpack_float[kind] : kernels.unpack_bfloat16[kind];
  const int64_t tiles = tiles_of(weight.out_features);
  const int64_t piece = std::clamp<int64_t>(scratch_values / cpu::tile_rows / weight.in_features, 1, tiles);
  const at::Tensor dense = at::empty({weight.in_features, piece * cpu::tile_rows}, type);
  at::Tensor y = at::empty({x.size(0), weight.out_features}, x.options());
  for (int64_t begin = 0; begin < tiles; begin += piece) {
    const int64_t count = std::min(piece, tiles - begin);
    const int64_t stride = piece * cpu::tile_rows;
    auto* to = static_cast<std::byte*>(dense.mutable_data_ptr());
    at::parallel_for(0, count, 1, [&](int64_t first, int64_t last) {
      unpack_piece(matrix_of(weight), begin + first, begin + last, stride,
                   to + first * cpu::tile_rows * static_cast<int64_t>(dense.element_size()));
    });
    const int64_t outputs = std::min(count * cpu::tile_rows, weight.out_features - begin * cpu::tile_rows);
    y.narrow(1, begin * cpu::tile_rows, outputs).copy_(at::mm(x, dense.narrow(1, 0, outputs)));
  }
  return y;
}

}  // namespace

PackedWeight pack_blocks(PackedFormat format, int64_t out_features, int64_t in_features,
                         std::span<const std::byte> blocks) {
  if (format == PackedFormat::int8_row || format == PackedFormat::fp8_row) {
    refuse_packed("rows with one scale have no blocks; give their values and scales");
  }
  if (out_features < 0 || in_features < 0 || in_features % block_inputs != 0) {
    refuse_packed("[" + std::to_string(out_features) + ", " + std::to_string(in_features) +
                  "] given; the width must be a multiple of 32");
  }
  const int64_t row_bytes = in_features / block_inputs * block_bytes(format);
  const auto given = static_cast<int64_t>(blocks.size());
  if (row_bytes == 0 ? given != 0 : (given % row_bytes != 0 || given / row_bytes != out_features)) {
    refuse_packed(std::to_string(given) + " bytes of blocks given, expected " + std::to_string(out_features) +
                  " rows of " + std::to_string(row_bytes));
  }
  PackedWeight weight = empty_weight(format, out_features, in_features);
  const PackedRows rows(weight);
  at::parallel_for(0, tiles_of(out_features), 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin * cpu::tile_rows; row < std::min(end * cpu::tile_rows, out_features); ++row) {
      for (int64_t block = 0; block < in_features / block_inputs; ++block) {
        put_block(rows.block(row, block), row % cpu::tile_rows,
                  blocks.data() + row * row_bytes + block * block_bytes(format));
      }
    }
  });
  return weight;
}

PackedWeight pack_int8_rows(const at::Tensor& values, const at::Tensor& scales) {
  if (values.dim() != 2 || values.scalar_type() != at::kChar || scales.dim() != 1 || scales.size(0) != values.size(0)) {
    refuse_packed("expected int8 values [out, in] and scales [out]");
  }
  PackedWeight weight = empty_weight(PackedFormat::int8_row, values.size(0), values.size(1));
  weight.scales = padded_scales(scales);
  const at::Tensor dense = values.contiguous();
  const int8_t* from = dense.const_data_ptr<int8_t>();
  const PackedRows rows(weight);
  for (int64_t row = 0; row < weight.out_features; ++row) {
    std::byte* tile = rows.tile(row);
    for (int64_t i = 0; i < weight.in_features; ++i) {
      tile[i * cpu::tile_rows + row % cpu::tile_rows] = static_cast<std::byte>(from[row * weight.in_features + i]);
    }
  }
  return weight;
}

PackedWeight concatenate(std::span<const PackedWeight> parts) {
  if (parts.empty()) refuse_packed("nothing to concatenate");
  int64_t out_features = 0;
  for (const PackedWeight& part : parts) {
    if (part.format != parts[0].format || part.in_features != parts[0].in_features) {
      refuse_packed("parts of different formats or widths cannot be concatenated");
    }
    out_features += part.out_features;
  }
  if (is_flat(parts[0])) return concatenate_flat(parts);
  PackedWeight whole = empty_weight(parts[0].format, out_features, parts[0].in_features);
  if (whole.format == PackedFormat::int8_row) {
    whole.scales = at::zeros({tiles_of(out_features) * cpu::tile_rows}, at::kFloat);
  }
  int64_t row = 0;
  for (const PackedWeight& part : parts) {
    if (part.scales.defined()) {
      whole.scales.narrow(0, row, part.out_features).copy_(part.scales.narrow(0, 0, part.out_features));
    }
    int64_t from = 0;
    if (row % cpu::tile_rows == 0 && part.out_features >= cpu::tile_rows) {  // whole tiles stay as they are
      from = part.out_features / cpu::tile_rows * cpu::tile_rows;
      std::memcpy(PackedRows(whole).tile(row), PackedRows(part).tile(0),
                  static_cast<size_t>(from / cpu::tile_rows * bytes_per_tile(part.format, part.in_features)));
      row += from;
    }
    for (; from < part.out_features; ++from, ++row) copy_row(part, from, whole, row);
  }
  return whole;
}

at::Tensor packed_linear_by_pairs(const at::Tensor& x, const PackedWeight& weight,
                                  const cpu::PackedPairKernel& kernel) {
  if (x.dim() != 2 || x.scalar_type() != at::kBFloat16 || x.size(1) != weight.in_features ||
      weight.in_features % 8 != 0 || is_flat(weight))
    refuse_packed("rows given that are not bfloat16 [N, " + std::to_string(weight.in_features) + "], of eights");
  const at::Tensor dense = x.contiguous();
  const int64_t in = weight.in_features, rows = x.size(0), blocks = in / block_inputs, most = kernel.row_block;
  const auto* from = static_cast<const uint16_t*>(dense.const_data_ptr());
  auto* panels = scratch<uint32_t>(rows * (in / 2));
  auto* sums = scratch<float>(rows * blocks);
  const auto lay_out = [&](int64_t row, int64_t count) {
    lay_out_pairs(from + row * in, count, in, panels + row * (in / 2), sums + row * blocks);
  };
  at::parallel_for(0, rows / most, 1, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) lay_out(panel * most, most);
  });
  for (int64_t row = rows / most * most, count = most; row < rows; row += count) {
    while (row + count > rows) count /= 2;
    lay_out(row, count);
  }
  at::Tensor y(at::detail::empty_cpu({rows, weight.out_features}, at::kFloat));
  const cpu::PackedPairProduct product{matrix_of(weight), panels, sums, rows, y.mutable_data_ptr<float>()};
  const auto multiply = kernel.multiply[static_cast<int>(weight.format)];
  at::parallel_for(0, tiles_of(weight.out_features), 1,
                   [&](int64_t begin, int64_t end) { multiply(product, begin, end); });
  return y.to(at::kBFloat16);
}

int64_t packed_bfloat16_rows() {
  if (cpu::packed_pair_kernel().fast) return 32;
  return multiplies_bfloat16() ? 64 : std::numeric_limits<int64_t>::max();
}

at::Tensor packed_linear(const at::Tensor& x, const PackedWeight& weight) {
  if (x.dim() != 2 || x.size(1) != weight.in_features ||
      (x.scalar_type() != at::kFloat && x.scalar_type() != at::kBFloat16)) {
    refuse_packed("rows given that are not float32 or bfloat16 [N, " + std::to_string(weight.in_features) + "]");
  }
  if (is_flat(weight)) return flat_linear(x, weight);
  if (const cpu::PackedPairKernel pairs = cpu::packed_pair_kernel(); pairs.fast && takes_pairs(x, weight))
    return packed_linear_by_pairs(x, weight, pairs);
  if (weight.in_features > 0 && x.size(0) >= dense_rows(x.scalar_type())) {
    if (multiplies_bfloat16()) return multiply_unpacked(x, weight);
    return multiply_unpacked(x.to(at::kFloat), weight).to(x.scalar_type());
  }
  return multiply_packed(x.to(at::kFloat).contiguous(), weight).to(x.scalar_type());
}

at::Tensor unpack_rows(const PackedWeight& weight, const at::Tensor& rows, at::ScalarType type) {
  if (rows.dim() != 1 || rows.scalar_type() != at::kLong) refuse_packed("row numbers must be int64 [N]");
  if (is_flat(weight)) return unpack_flat(flat_rows(weight, rows), type);
  const at::Tensor wanted = rows.contiguous();
  const int64_t* number = wanted.const_data_ptr<int64_t>();
  at::Tensor result = at::empty({rows.size(0), weight.in_features}, at::kFloat);
  for (int64_t i = 0; i < rows.size(0); ++i) {
    if (number[i] < 0 || number[i] >= weight.out_features) {
      refuse_packed("row " + std::to_string(number[i]) + " asked for of " + std::to_string(weight.out_features));
    }
    read_row(weight, number[i], result.mutable_data_ptr<float>() + i * weight.in_features);
  }
  return result.to(type);
}

at::Tensor unpack(const PackedWeight& weight, at::ScalarType type) {
  if (is_flat(weight)) return unpack_flat(weight, type);
  at::Tensor result = at::empty({weight.out_features, weight.in_features}, at::kFloat);
  float* to = result.mutable_data_ptr<float>();
  at::parallel_for(0, weight.out_features, 64, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) read_row(weight, row, to + row * weight.in_features);
  });
  return result.to(type);
}

int64_t packed_bytes(const PackedWeight& weight) {
  return static_cast<int64_t>(weight.data.nbytes() + (weight.scales.defined() ? weight.scales.nbytes() : 0));
}

}  // namespace cepe::ops
