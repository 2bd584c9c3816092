// Attention of query rows over keys and values that stand in memory, all of which every row sees.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "ops/merge_attention.h"

namespace cepe::ops {

// The heads of a group one after the other, as rows: [T, H, D] -> [G, (H/G) * T, D]. Exact wherever all query rows see
// the same keys, and each key is read once for the whole group. And back, also from [H, T, D].
at::Tensor fold_groups(const at::Tensor& queries, int64_t groups);
at::Tensor unfold_groups(const at::Tensor& folded, int64_t rows);

// queries [T, H, D], keys and values [M, G, D] of one type, H a multiple of G, M at least 1 -> output [H, T, D] (in
// memory [T, H, D]) bfloat16, log-sum-exp [H, T], by the kernel of arXiv 2407.08608 (cuda/dense_attention.cuh: its
// bound). Nullopt where it does not take them: it is for a Hopper GPU, bfloat16 of width 64 or 128, heads side by side,
// nothing to differentiate, query rows enough to be worth it. What a row gets depends on the number of rows only in
// rounding: that of keys may be shared out.
std::optional<PartialAttention> dense_attention(const at::Tensor& queries, const at::Tensor& keys,
                                                const at::Tensor& values, double scale);

// The same of LibTorch's operations, for any type, width and device: in float32, differentiable. The scores [H, T, M]
// exist at once.
PartialAttention composed_attention(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                                    double scale);

}  // namespace cepe::ops
