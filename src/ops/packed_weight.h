// A weight matrix kept in 4- or 8-bit blocks, multiplied without ever standing unpacked as a whole.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "ops/cpu/kernels.h"
#include "ops/packed_format.h"

namespace cepe::ops {

constexpr int64_t block_inputs = 32;  // of the block formats: values of a row that share a scale

struct PackedWeight {
  PackedFormat format = PackedFormat::q8_0;
  int64_t out_features = 0;
  int64_t in_features = 0;  // a multiple of 32 for the block formats
  // uint8 and mostly float32. Their layout is private: tiles for the CPU's kernels (packed_weight.cpp), or rows on a
  // GPU and for fp8_row (flat_weight.h).
  at::Tensor data, scales;
};

// Copies blocks (as they stand in a GGUF file, row-major [out, in / 32 blocks]) into the kernels' layout.
// Errors: invalid_argument where sizes do not agree.
PackedWeight pack_blocks(PackedFormat format, int64_t out_features, int64_t in_features,
                         std::span<const std::byte> blocks);
// values int8 [out, in], scales [out], all on the CPU.
PackedWeight pack_int8_rows(const at::Tensor& values, const at::Tensor& scales);
// Rows of several weights of one format, width and device under one another (q, k, v fused).
PackedWeight concatenate(std::span<const PackedWeight> parts);

// x [N, in] (float32 or bfloat16) times weight^T -> [N, out] of x's type, which also decides how it is computed:
//   float32   block kernels at any N: what the unpacked float32 product gives, up to rounding
//   bfloat16  the same with the result rounded once, up to 63 rows; from 64 on pieces of the weight are unpacked into
//             one bfloat16 buffer and multiplied by LibTorch, as a dense bfloat16 weight is. With AVX512_BF16 on AMD's
//             processors 8 to 191 rows by pairs of bfloat16, the block's scales in float32
// A processor with AVX2 alone unpacks from 32 rows on, one without from 16, both as float32. Bound: bytes of the weight
// / memory bandwidth for a row or two, multiply-adds / vector rate beyond. On a GPU and for fp8_row anywhere
// flat_weight.h says how. No autograd. Errors: invalid_argument.
at::Tensor packed_linear(const at::Tensor& x, const PackedWeight& weight);

// x bfloat16, any N, by pairs: what packed_linear does where such a kernel is fast. in_features a multiple of 8.
at::Tensor packed_linear_by_pairs(const at::Tensor& x, const PackedWeight& weight,
                                  const cpu::PackedPairKernel& kernel = cpu::packed_pair_kernel());
// From how many rows on a CPU multiplies them faster in bfloat16 than in float32.
int64_t packed_bfloat16_rows();

// Rows `rows` (int64 [N] on the weight's device) as `type` [N, in]: embedding look-up.
at::Tensor unpack_rows(const PackedWeight& weight, const at::Tensor& rows, at::ScalarType type);
// The whole matrix [out, in].
at::Tensor unpack(const PackedWeight& weight, at::ScalarType type);

int64_t packed_bytes(const PackedWeight& weight);

}  // namespace cepe::ops
