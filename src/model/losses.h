// The losses of the method (arXiv 2402.16617), as they are defined: over whole logits. All in float32, differentiable.
// Training takes those per row, and cross-entropy from ops/chunked_loss.h, which never holds all logits.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace cepe::model {

// Mean cross-entropy of logits[:, t] against labels[:, t + 1] over labels != -100. logits [B, T, V], labels [B, T].
at::Tensor language_modelling_loss(const at::Tensor& logits, const at::Tensor& labels);

// Masked language modelling: no shift, mean over labels != -100. logits [B, T, V], labels [B, T].
at::Tensor masked_language_modelling_loss(const at::Tensor& logits, const at::Tensor& labels);

// How the student's and the teacher's "all other tokens" entry is treated.
struct DistillationMode {
  enum class Kind { smooth, drop } kind = Kind::smooth;
  double smoothing = 0;  // x of smooth_x
};
// "smooth_1e-6" or "drop". Errors: invalid_argument with the forms that are known.
DistillationMode distillation_mode(const std::string& name);

// KL(teacher || student) over the last Td = floor(T/2) positions, no shift, divided by B * Td.
//   logits [B, T, V]; teacher_probabilities [B, Td, k + 1] (the last = all other tokens), teacher_indices [B, Td, k].
at::Tensor distillation_loss(const at::Tensor& logits, const at::Tensor& teacher_probabilities,
                             const at::Tensor& teacher_indices, const DistillationMode& mode);

// The same per row, of a teacher's listed tokens: logits [n, V], teacher_probabilities [n, k + 1], teacher_indices
// [n, k] -> [n].
at::Tensor listed_divergence(const at::Tensor& logits, const at::Tensor& teacher_probabilities,
                             const at::Tensor& teacher_indices, const DistillationMode& mode);
// The same per row, from both models' logits [n, V]: over the teacher's `top` best tokens and all others as one. -> [n]
at::Tensor top_divergence(const at::Tensor& logits, const at::Tensor& teacher_logits, int64_t top,
                          const DistillationMode& mode);
// KL(teacher || student) over the whole vocabulary, per row: [n, V], [n, V] -> [n].
at::Tensor divergence(const at::Tensor& logits, const at::Tensor& teacher_logits);

}  // namespace cepe::model
