// row_attention.h for many query rows over bfloat16 on processors that multiply pairs of bfloat16: what a question of
// 16 tokens and more asks of a kept context. Queries are rounded to bfloat16; a probability is off by at most 0.65 %,
// by nothing on average (ops/cpu/power_table.h), and the log-sum-exp is of these.
#pragma once

#include "ops/cpu/kernels.h"
#include "ops/row_attention.h"

namespace cepe::ops {

// Whether the kernel takes these, and is the faster one here: 16 query rows a group and more, pages of bfloat16, widths
// multiples of 32.
bool prefers_pair_attention(const at::Tensor& queries, std::span<const RowPage> pages);

// As row_attention, by any kernel of pairs.
RowAttention pair_attention(const at::Tensor& queries, std::span<const RowPage> pages, double scale,
                            const cpu::PairKernel& kernel);

}  // namespace cepe::ops
