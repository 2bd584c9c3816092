// Packed weights whose rows lie one after another: those on a GPU (fp8_row, int8_row, q4_1), and fp8_row on the CPU.
// packed_weight.h is what others call; this is how it is done there.
//
// A row is cut into chunks of 64 bytes, the last one filled up with zeros. Four neighbouring threads of a GPU read a
// chunk, 16 bytes each, as the operand of its tensor cores; hence the order within:
//   fp8_row, int8_row  a chunk is 64 inputs in order, but of each four the two in the middle have changed places, so
//   that
//                      bytes 0 and 2 of a word are one pair of neighbours and bytes 1 and 3 the next. int8 as sign and
//                      magnitude. scales: float32 [out]
//   q4_1               a chunk is 128 inputs, that is four blocks of 32. Word g of piece j (of 4 each) holds inputs
//                      8j to 8j + 7 of block g: nibble i is input 8j + 2i, nibble i + 4 the one after.
//                      scales: float16 [out, blocks, 2], d and m of each block
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

#include "ops/packed_weight.h"

namespace cepe::ops {

bool is_flat(const PackedWeight& weight);

// values [out, in]: int8 for int8_row, the bits of e4m3 as uint8 for fp8_row; scales float32 [out]. On their device.
PackedWeight flat_from_rows(PackedFormat format, const at::Tensor& values, const at::Tensor& scales);
// quants uint8 [out, blocks, 32] of 0 to 15, scales float16 [out, blocks, 2] (d, m).
PackedWeight flat_from_blocks(const at::Tensor& quants, const at::Tensor& scales);

PackedWeight concatenate_flat(std::span<const PackedWeight> parts);
// The rows `rows` (int64 [N] on the weight's device) as a weight. Errors: invalid_argument for rows that are not there;
// on a GPU LibTorch's own, later.
PackedWeight flat_rows(const PackedWeight& weight, const at::Tensor& rows);

// The whole matrix [out, in], by a kernel where there is one, else by ATen operations.
at::Tensor unpack_flat(const PackedWeight& weight, at::ScalarType type);

// As packed_linear. bfloat16 on a GPU, up to 16 rows of x: one pass over the weight's bytes, products in bfloat16, sums
// in float32 (ops/cuda/packed_product.cu, one_row.cu). Else pieces of the weight are unpacked in x's type into one
// buffer and multiplied by LibTorch: 16-bit traffic, but a product of many rows is bound by its operations. Nothing
// waits for the device and no memory is taken but LibTorch's own, so a CUDA graph can hold either.
at::Tensor flat_linear(const at::Tensor& x, const PackedWeight& weight);

// Bytes of an [out, in] weight so kept.
int64_t flat_bytes(PackedFormat format, int64_t out_features, int64_t in_features);

}  // namespace cepe::ops
