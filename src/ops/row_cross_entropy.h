// Cross-entropy of rows of logits, with its gradient written over them.
#pragma once

#include <ATen/core/Tensor.h>

namespace cepe::ops {

// Memory for `rows` rows of logits [rows, V] whose rows begin where a GPU's kernel can read them widely.
at::Tensor logits_buffer(int64_t rows, int64_t vocabulary, const at::TensorOptions& options);

// losses [n] = -log softmax(logits)[label] in float32: 0 where the label is `ignored_label`, NaN where it lies outside
// the vocabulary. With `wants_gradient`, logits [n, V] (rows apart as they like) become d(sum of losses * scale) / d
// logits; without it they may be overwritten by anything. scale: one float32 on the same device. cap: chunked_loss.h.
void row_cross_entropy(const at::Tensor& logits, const at::Tensor& labels, const at::Tensor& scale, double cap,
                       bool wants_gradient, const at::Tensor& losses);

}  // namespace cepe::ops
