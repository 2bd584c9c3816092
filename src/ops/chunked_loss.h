// Losses of logits = hidden * weight^T that never hold all logits: rows go by in chunks, each chunk's gradient in its
// logits is made in the forward pass and multiplied out at once, so that the backward pass only scales. A vocabulary of
// 49152 with 16384 rows in bfloat16 takes 0.25 GiB at a time instead of 1.5 GiB, three times over.
// Gradients inside the forward pass: Liger Kernel (Hsu et al., arXiv 2410.10989), Cut Your Losses (Wijmans et al.,
// arXiv 2411.09009).
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace cepe::ops {

inline constexpr int64_t ignored_label = -100;

// Mean over the rows whose label is not `ignored_label` of -log softmax(logits)[label], logits = hidden * weight^T and,
// where cap > 0, tanh(logits / cap) * cap (Gemma 2). Softmax in float32.
// hidden [N, C] float32 or bfloat16, weight [V, C] (taken in hidden's type), labels [N] int64 -> scalar float32; 0
// where no row has a label. First derivatives in hidden, and in weight where it wants one (summed over the chunks in
// float32). rows_per_chunk: 0 = as many as make about 256 MiB of logits. Errors: invalid_argument: sizes or types that
// do not fit; a label that is neither ignored nor in [0, V), on the CPU. On a GPU, where looking would mean waiting,
// such a label makes the loss and its row's gradient NaN.
at::Tensor linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels,
                                double cap = 0, int64_t rows_per_chunk = 0);

// loss(logits, first, rows): a scalar of the logits [rows, V] of hidden's type that belong to rows first, first + 1,
// ...
using LossOfLogits = std::function<at::Tensor(const at::Tensor& logits, int64_t first, int64_t rows)>;

// The sum of `loss` over the chunks, scalar float32. First derivatives in hidden and weight as above; what else `loss`
// reads counts as constant. Errors: invalid_argument: as above; a loss that is no scalar.
at::Tensor chunked_loss(const at::Tensor& hidden, const at::Tensor& weight, const LossOfLogits& loss,
                        int64_t rows_per_chunk = 0);

}  // namespace cepe::ops
