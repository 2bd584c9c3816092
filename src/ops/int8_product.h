// States kept in 8 bits times weights in 8 bits, both with a scale a row: what makes K and V of a context whose pages
// stay packed (int8_rows.h). Sums are of integers and so exact: what the unpacked product gives in float64, but for the
// two scales and one rounding to bfloat16.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <span>

#include "ops/cpu/kernels.h"
#include "ops/packed_weight.h"

namespace cepe::ops {

// Whether it takes rows of that width and this weight: multiples of 64, int8_row on the CPU.
bool takes_int8_product(const PackedWeight& weight);
// Whether it is the fastest way on this processor: one with AMX.
bool prefers_int8_product();

using WeightReference = std::reference_wrapper<const PackedWeight>;

// Pages [S_i, E + 4] one under another, times the weights side by side -> bfloat16 [sum of S_i, sum of out_features].
// Weights are laid out anew by each call: it is made for many rows. Errors: invalid_argument.
at::Tensor int8_product(std::span<const at::Tensor> pages, std::span<const WeightReference> weights,
                        const cpu::Int8Kernel& kernel = cpu::int8_kernel());

}  // namespace cepe::ops
