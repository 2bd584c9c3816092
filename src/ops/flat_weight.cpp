#include "ops/flat_weight.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/error.h"
#include "ops/cuda/loaded.h"
#include "ops/device.h"
#include "ops/fused.h"

namespace cepe::ops {
namespace {

constexpr int64_t chunk_bytes = 64;

[[noreturn]] void refuse_flat(const std::string& message) {
  throw base::Error(base::ErrorCode::invalid_argument, "packed weight: " + message);
}

int64_t chunk_inputs(PackedFormat format) { return format == PackedFormat::q4_1 ? 128 : 64; }
int64_t chunks_of(PackedFormat format, int64_t in_features) {
  return (in_features + chunk_inputs(format) - 1) / chunk_inputs(format);
}

// Zeros behind the last column, up to `width`.
at::Tensor widened(const at::Tensor& matrix, int64_t width) {
  return at::constant_pad_nd(matrix, {0, width - matrix.size(1)}, 0);
}

// Of each four columns the two in the middle change places; its own inverse.
at::Tensor middle_swapped(const at::Tensor& bytes) {
  return bytes.reshape({bytes.size(0), -1, 2, 2}).transpose(2, 3).reshape(bytes.sizes()).contiguous();
}

at::Tensor signed_values(const at::Tensor& bytes) {  // sign and magnitude -> float32
  const at::Tensor magnitudes = bytes.bitwise_and(127).to(at::kFloat);
  return at::where(bytes.gt(127), -magnitudes, magnitudes);
}

// Quants uint8 [out, blocks * 32] of a flat q4_1 weight.
at::Tensor quants_of(const PackedWeight& weight) {
  const at::Tensor words = weight.data.reshape({weight.out_features, -1, 4, 4, 2, 2});  // chunk, piece, block, byte
  // Byte (high, low) holds nibbles 4 high + 2 low + {0, 1}: inputs 4 low + 2 {0, 1} + high of their eight.
  const at::Tensor nibbles = at::stack({words.bitwise_and(15), words.bitwise_right_shift(4)}, -1);
  return nibbles.permute({0, 1, 3, 2, 5, 6, 4}).reshape({weight.out_features, -1});
}

at::Tensor unpack_composed(const PackedWeight& weight, at::ScalarType type) {
  const int64_t in = weight.in_features;
  if (weight.format == PackedFormat::q4_1) {
    const at::Tensor quants = quants_of(weight).reshape({weight.out_features, -1, block_inputs}).to(at::kFloat);
    const at::Tensor scales = weight.scales.to(at::kFloat);
    return (quants * scales.narrow(2, 0, 1) + scales.narrow(2, 1, 1))
        .reshape({weight.out_features, -1})
        .narrow(1, 0, in)
        .to(type)
        .contiguous();
  }
  const at::Tensor bytes = middle_swapped(weight.data).narrow(1, 0, in).contiguous();
  const at::Tensor values =
      weight.format == PackedFormat::fp8_row ? bytes.view(at::kFloat8_e4m3fn).to(at::kFloat) : signed_values(bytes);
  return (values * weight.scales.unsqueeze(1)).to(type);
}

cuda::PackedRows rows_of(const PackedWeight& weight) {
  return {.data = weight.data.const_data_ptr(),
          .scales = weight.scales.const_data_ptr(),
          .out_features = weight.out_features,
          .in_features = weight.in_features,
          .chunks = chunks_of(weight.format, weight.in_features),
          .format = weight.format};
}

const cuda::CudaKernels* flat_kernels_for(const PackedWeight& weight) {
  return weight.data.is_cuda() ? cuda::kernels() : nullptr;
}

// Rows [first, first + to.size(0)) of the weight to `to`, contiguous, float32 or bfloat16.
void unpack_piece(const PackedWeight& weight, int64_t first, at::Tensor& to) {
  const cuda::CudaKernels* gpu = flat_kernels_for(weight);
  if (gpu) {
    cuda::check(gpu->unpack({.weight = rows_of(weight),
                             .to = to.mutable_data_ptr(),
                             .first = first,
                             .rows = to.size(0),
                             .bfloat16 = to.scalar_type() == at::kBFloat16,
                             .device = weight.data.device().index()}),
                "unpack");
    return;
  }
  const PackedWeight part = {weight.format, to.size(0), weight.in_features, weight.data.narrow(0, first, to.size(0)),
                             weight.scales.narrow(0, first, to.size(0))};
  to.copy_(unpack_composed(part, to.scalar_type()));
}

// Pieces of the weight through one buffer. LibTorch gives the same memory to the next call.
at::Tensor multiply_dequantised(const at::Tensor& x, const PackedWeight& weight) {
  const int64_t scratch_values = x.is_cpu() ? int64_t{1} << 19 : int64_t{1} << 25;
  const int64_t piece = std::clamp<int64_t>(scratch_values / weight.in_features, 1, weight.out_features);
  const at::Tensor scratch = at::empty({piece, weight.in_features}, x.options());
  at::Tensor y = at::empty({x.size(0), weight.out_features}, x.options());
  for (int64_t first = 0; first < weight.out_features; first += piece) {
    at::Tensor dense = scratch.narrow(0, 0, std::min(piece, weight.out_features - first));
    unpack_piece(weight, first, dense);
    at::Tensor columns = y.narrow(1, first, dense.size(0));
    at::mm_out(columns, x, dense.t());
  }
  return y;
}

bool has_product_kernel(const at::Tensor& x, const PackedWeight& weight) {
  const int64_t step = weight.format == PackedFormat::q4_1 ? block_inputs : 16;
  return flat_kernels_for(weight) && x.scalar_type() == at::kBFloat16 && x.size(0) <= cuda::most_packed_product_rows &&
         weight.in_features % step == 0 && x.numel() <= cuda::most_elements && is_aligned(x);
}

at::Tensor multiply_flat(const at::Tensor& x, const PackedWeight& weight) {
  at::Tensor y = at::empty({x.size(0), weight.out_features}, x.options());
  cuda::check(flat_kernels_for(weight)->packed_product({.weight = rows_of(weight),
                                                        .x = x.const_data_ptr(),
                                                        .y = y.mutable_data_ptr(),
                                                        .rows = x.size(0),
                                                        .device = x.device().index()}),
              "packed_product");
  return y;
}

}  // namespace

bool is_flat(const PackedWeight& weight) {
  return weight.format == PackedFormat::fp8_row || (weight.data.defined() && !weight.data.is_cpu());
}

namespace {

// The kernels read a weight while whatever came before them still runs: it must not be what wrote it.
PackedWeight settled(PackedWeight weight) {
  synchronise(weight.data.device());
  return weight;
}

}  // namespace

PackedWeight flat_from_rows(PackedFormat format, const at::Tensor& values, const at::Tensor& scales) {
  const bool int8 = format == PackedFormat::int8_row;
  if ((!int8 && format != PackedFormat::fp8_row) || values.dim() != 2 ||
      values.scalar_type() != (int8 ? at::kChar : at::kByte) || scales.dim() != 1 || scales.size(0) != values.size(0)) {
    refuse_flat("expected int8 values or bits of e4m3 [out, in] and scales [out]");
  }
  at::Tensor bytes = values;
  if (int8) {
    const at::Tensor negative = values.lt(0).to(at::kByte).bitwise_left_shift(7);
    bytes = values.clamp_min(-127).abs().to(at::kByte).bitwise_or(negative);
  }
  bytes = middle_swapped(widened(bytes, chunks_of(format, values.size(1)) * chunk_bytes));
  return settled({format, values.size(0), values.size(1), bytes, scales.to(at::kFloat).contiguous()});
}

PackedWeight flat_from_blocks(const at::Tensor& quants, const at::Tensor& scales) {
  if (quants.dim() != 3 || quants.size(2) != block_inputs || quants.scalar_type() != at::kByte || scales.dim() != 3 ||
      scales.scalar_type() != at::kHalf || scales.size(0) != quants.size(0) || scales.size(1) != quants.size(1) ||
      scales.size(2) != 2) {
    refuse_flat("expected uint8 quants [out, blocks, 32] and float16 scales [out, blocks, 2]");
  }
  const int64_t out = quants.size(0), in = quants.size(1) * block_inputs;
  const int64_t chunks = chunks_of(PackedFormat::q4_1, in);
  const at::Tensor all = widened(quants.reshape({out, in}), chunks * chunk_inputs(PackedFormat::q4_1));
  // Inputs of a chunk: block, piece, then 4 low + 2 nibble + high; see quants_of.
  const at::Tensor ordered = all.reshape({out, chunks, 4, 4, 2, 2, 2}).permute({0, 1, 3, 2, 6, 4, 5});
  const at::Tensor bytes = ordered.select(6, 0).bitwise_or(ordered.select(6, 1).bitwise_left_shift(4));
  const at::Tensor whole_scales = widened(scales.reshape({out, -1}), chunks * 8).reshape({out, chunks * 4, 2});
  return settled({PackedFormat::q4_1, out, in, bytes.reshape({out, chunks * chunk_bytes}).contiguous(),
                  whole_scales.contiguous()});
}

PackedWeight concatenate_flat(std::span<const PackedWeight> parts) {
  std::vector<at::Tensor> data, scales;
  int64_t out_features = 0;
  for (const PackedWeight& part : parts) {
    if (part.data.device() != parts[0].data.device()) refuse_flat("parts on different devices cannot be concatenated");
    data.push_back(part.data);
    scales.push_back(part.scales);
    out_features += part.out_features;
  }
  return settled({parts[0].format, out_features, parts[0].in_features, at::cat(data), at::cat(scales)});
}

PackedWeight flat_rows(const PackedWeight& weight, const at::Tensor& rows) {
  if (rows.is_cpu() && rows.numel() > 0 &&
      (rows.min().item<int64_t>() < 0 || rows.max().item<int64_t>() >= weight.out_features)) {
    refuse_flat("rows asked for that are not among its " + std::to_string(weight.out_features));
  }
  return {weight.format, rows.size(0), weight.in_features, weight.data.index_select(0, rows),
          weight.scales.index_select(0, rows)};
}

at::Tensor unpack_flat(const PackedWeight& weight, at::ScalarType type) {
  const bool bfloat16 = type == at::kBFloat16;
  at::Tensor whole = at::empty({weight.out_features, weight.in_features},
                               weight.data.options().dtype(bfloat16 ? at::kBFloat16 : at::kFloat));
  if (whole.numel() > 0) unpack_piece(weight, 0, whole);
  return whole.to(type);
}

at::Tensor flat_linear(const at::Tensor& x, const PackedWeight& weight) {
  if (x.device() != weight.data.device()) refuse_flat("rows given that are on another device than the weight");
  if (x.numel() == 0 || weight.out_features == 0) return at::zeros({x.size(0), weight.out_features}, x.options());
  const at::Tensor rows = x.contiguous();
  return has_product_kernel(rows, weight) ? multiply_flat(rows, weight) : multiply_dequantised(rows, weight);
}

int64_t flat_bytes(PackedFormat format, int64_t out_features, int64_t in_features) {
  const int64_t chunks = chunks_of(format, in_features);
  return out_features * (format == PackedFormat::q4_1 ? chunks * (chunk_bytes + 16) : chunks * chunk_bytes + 4);
}

}  // namespace cepe::ops
