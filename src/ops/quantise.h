// From dense weights to packed ones, each value rounded to the nearest.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "ops/packed_weight.h"

namespace cepe::ops {

// dense [out, in] of any float type -> the same in `format`, on its device, by the same operations on a CPU and a GPU:
//   fp8_row   scale = largest magnitude of the row / 448 (the largest e4m3)
//   int8_row  scale = largest magnitude of the row / 127
//   q4_1      by blocks of 32: m = the smallest value, d = (largest - smallest) / 15, both rounded to float16 first
// Memory: the result twice and 256 MB. Errors: invalid_argument for other formats, and q4_1 of a width that is no
// multiple of 32.
PackedWeight quantise(const at::Tensor& dense, PackedFormat format);

// Bytes that quantise gives for [out, in] on the CPU or a GPU.
int64_t quantised_bytes(PackedFormat format, int64_t out_features, int64_t in_features, bool on_cpu);

}  // namespace cepe::ops
