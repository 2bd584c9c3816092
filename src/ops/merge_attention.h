// An attention whose keys are read in several parts: each part's output and log-sum-exp, and their sum.
#pragma once

#include <ATen/core/Tensor.h>

namespace cepe::ops {

struct PartialAttention {
  at::Tensor output;       // [..., D] float32 or bfloat16
  at::Tensor log_sum_exp;  // [...] float32; -infinity: no key was seen, and the output counts for nothing
};

// Outputs weighted by exp(lse_i - lse), lse = log(exp(lse_1) + exp(lse_2)): exact, in float32. Where neither saw a key,
// zeros. Differentiable. Bound: both outputs read once and one written, over the memory's bandwidth.
// Errors: invalid_argument, where sizes do not agree.
PartialAttention merge_attention(const PartialAttention& first, const PartialAttention& second);

}  // namespace cepe::ops
