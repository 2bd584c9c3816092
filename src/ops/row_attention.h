// Attention of few query rows over many cached rows on the CPU: the inner loop of decoding. One kernel serves
//   self-attention over the key/value cache      (keys, values [M, G, D], R = H/G query rows a group and token),
//   cross-attention over kept keys and values    (the same),
//   absorbed cross-attention over chunk states   (G = 1, R = H, D = E, keys == values == states).
#pragma once

#include <ATen/core/Tensor.h>

#include <span>

namespace cepe::ops {

// A run of consecutive cached rows. Pages are read in order; the softmax runs over all of them together.
struct RowPage {
  at::Tensor keys;    // [M_i, G, D] bfloat16 or float32, last two dimensions contiguous, any row stride
  at::Tensor values;  // [M_i, G, Dv]; may be the same tensor as keys
};

struct RowAttention {
  at::Tensor output;       // [R, G, Dv] float32
  at::Tensor log_sum_exp;  // [R, G] float32 (natural log of the softmax's denominator, scale included)
};

// queries [R, G, D] float32 -> softmax(scale * q.k) v over all rows of all pages, every row visible to every query.
// No page or no row: output zero, log_sum_exp -infinity. Split over rows among threads and merged by log-sum-exp.
// Bound: bytes of keys and values / memory bandwidth for R up to about 16, operations / vector rate beyond.
RowAttention row_attention(const at::Tensor& queries, std::span<const RowPage> pages, double scale);

}  // namespace cepe::ops
