#include "ops/quantise.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <functional>
#include <span>
#include <string>

#include "base/error.h"
#include "ops/cpu/kernels.h"
#include "ops/flat_weight.h"

namespace cepe::ops {
namespace {

constexpr double largest_e4m3 = 448, largest_int8 = 127, largest_nibble = 15;

[[noreturn]] void refuse_to_quantise(const std::string& message) {
  throw base::Error(base::ErrorCode::invalid_argument, "quantise: " + message);
}

// A tensor, since a GPU multiplies by the inverse of a number where a CPU divides by it.
at::Tensor divisor(double value, const at::Tensor& like) { return at::full({}, value, like.options()); }

// body(first, rows [n, in] float32): pieces of the matrix that fit into memory beside it.
void over_pieces(const at::Tensor& dense, const std::function<void(int64_t, const at::Tensor&)>& body) {
  constexpr int64_t piece_values = int64_t{1} << 24;
  const int64_t piece = std::max<int64_t>(1, piece_values / std::max<int64_t>(1, dense.size(1)));
  for (int64_t first = 0; first < dense.size(0); first += piece) {
    body(first, dense.narrow(0, first, std::min(piece, dense.size(0) - first)).to(at::kFloat));
  }
}

PackedWeight quantise_rows(const at::Tensor& dense, PackedFormat format) {
  const bool int8 = format == PackedFormat::int8_row;
  const at::Tensor values = at::empty(dense.sizes(), dense.options().dtype(int8 ? at::kChar : at::kByte));
  const at::Tensor scales = at::empty({dense.size(0)}, dense.options().dtype(at::kFloat));
  over_pieces(dense, [&](int64_t first, const at::Tensor& rows) {
    const double largest = int8 ? largest_int8 : largest_e4m3;
    constexpr double smallest_scale = 1e-30;  // of a row of zeros
    const at::Tensor scale = (rows.abs().amax(1) / divisor(largest, rows)).clamp_min(smallest_scale);
    const at::Tensor scaled = (rows / scale.unsqueeze(1)).clamp(-largest, largest);
    scales.narrow(0, first, rows.size(0)).copy_(scale);
    values.narrow(0, first, rows.size(0))
        .copy_(int8 ? scaled.round().to(at::kChar) : scaled.to(at::kFloat8_e4m3fn).view(at::kByte));
  });
  return int8 && dense.is_cpu() ? pack_int8_rows(values, scales) : flat_from_rows(format, values, scales);
}

// As a GGUF file has them: d, m, nibbles (i low, i + 16 high).
PackedWeight pack_nibbles(const at::Tensor& quants, const at::Tensor& scales) {
  const int64_t out = quants.size(0), blocks = quants.size(1);
  const at::Tensor low = quants.narrow(2, 0, 16), high = quants.narrow(2, 16, 16);
  const at::Tensor bytes =
      at::cat({scales.view(at::kByte), low.bitwise_or(high.bitwise_left_shift(4))}, 2).contiguous();
  return pack_blocks(PackedFormat::q4_1, out, blocks * block_inputs,
                     {static_cast<const std::byte*>(bytes.const_data_ptr()), static_cast<size_t>(bytes.numel())});
}

PackedWeight quantise_blocks(const at::Tensor& dense) {
  if (dense.size(1) % block_inputs != 0) {
    refuse_to_quantise("a width of " + std::to_string(dense.size(1)) +
                       " is no multiple of 32, as blocks of 4 bits need");
  }
  const int64_t out = dense.size(0), blocks = dense.size(1) / block_inputs;
  const at::Tensor quants = at::empty({out, blocks, block_inputs}, dense.options().dtype(at::kByte));
  const at::Tensor scales = at::empty({out, blocks, 2}, dense.options().dtype(at::kHalf));
  over_pieces(dense, [&](int64_t first, const at::Tensor& rows) {
    const at::Tensor grouped = rows.reshape({rows.size(0), blocks, block_inputs});
    const at::Tensor least = grouped.amin(2, true), range = grouped.amax(2, true) - least;
    const at::Tensor pair = at::cat({range / divisor(largest_nibble, rows), least}, 2).to(at::kHalf);
    const at::Tensor d = pair.narrow(2, 0, 1).to(at::kFloat), m = pair.narrow(2, 1, 1).to(at::kFloat);
    constexpr double least_step = 1e-30;  // of a block of equal values
    const at::Tensor quant = ((grouped - m) / d.clamp_min(least_step)).round().clamp(0, largest_nibble);
    scales.narrow(0, first, rows.size(0)).copy_(pair);
    quants.narrow(0, first, rows.size(0)).copy_(quant.to(at::kByte));
  });
  return dense.is_cpu() ? pack_nibbles(quants, scales) : flat_from_blocks(quants, scales);
}

}  // namespace

PackedWeight quantise(const at::Tensor& dense, PackedFormat format) {
  const at::NoGradGuard none;
  if (dense.dim() != 2 || !dense.is_floating_point())
    refuse_to_quantise("expected a matrix [out, in] of floating-point numbers");
  switch (format) {
    case PackedFormat::fp8_row:
    case PackedFormat::int8_row:
      return quantise_rows(dense, format);
    case PackedFormat::q4_1:
      return quantise_blocks(dense);
    default:
      refuse_to_quantise("known are fp8_row, int8_row and q4_1");
  }
}

int64_t quantised_bytes(PackedFormat format, int64_t out_features, int64_t in_features, bool on_cpu) {
  if (!on_cpu || format == PackedFormat::fp8_row) return flat_bytes(format, out_features, in_features);
  const int64_t rows = (out_features + cpu::tile_rows - 1) / cpu::tile_rows * cpu::tile_rows;
  return format == PackedFormat::int8_row ? rows * (in_features + 4) : rows * (in_features / block_inputs) * 20;
}

}  // namespace cepe::ops
