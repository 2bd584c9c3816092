#include "model/losses.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/log.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/xlogy.h>

#include <algorithm>
#include <charconv>

#include "base/error.h"

namespace cepe::model {
namespace {

constexpr int64_t ignored_label = -100;

at::Tensor cross_entropy(const at::Tensor& logits, const at::Tensor& labels) {
  return at::cross_entropy_loss(logits.reshape({-1, logits.size(-1)}).to(at::kFloat), labels.reshape({-1}), {},
                                at::Reduction::Mean, ignored_label);
}

}  // namespace

at::Tensor language_modelling_loss(const at::Tensor& logits, const at::Tensor& labels) {
  const int64_t length = logits.size(1);
  return cross_entropy(logits.narrow(1, 0, length - 1), labels.narrow(1, 1, length - 1));
}

at::Tensor masked_language_modelling_loss(const at::Tensor& logits, const at::Tensor& labels) {
  return cross_entropy(logits, labels);
}

DistillationMode distillation_mode(const std::string& name) {
  if (name == "drop") return {DistillationMode::Kind::drop, 0};
  const std::string prefix = "smooth_";
  double smoothing = 0;
  if (name.rfind(prefix, 0) == 0) {
    const char* end = name.data() + name.size();
    const auto [stop, error] = std::from_chars(name.data() + prefix.size(), end, smoothing);
    if (error == std::errc() && stop == end && smoothing >= 0 && smoothing < 1)
      return {DistillationMode::Kind::smooth, smoothing};
  }
  throw base::Error(base::ErrorCode::invalid_argument,
                    "kl_loss_mode '" + name + "': known are 'drop' and 'smooth_X' with 0 <= X < 1");
}

at::Tensor listed_divergence(const at::Tensor& logits, const at::Tensor& teacher_probabilities,
                             const at::Tensor& teacher_indices, const DistillationMode& mode) {
  const int64_t top = teacher_indices.size(-1);
  // The smallest float32 stands in for a student's "all others" of zero or below.
  constexpr double least = 1e-30;
  const at::Tensor all = at::softmax(logits.to(at::kFloat), -1);
  const at::Tensor listed = at::gather(all, -1, teacher_indices);
  const at::Tensor others = 1.0 - listed.sum(-1, true);
  at::Tensor student = at::cat({listed, others}, -1);
  // All others is a difference, and may come out below zero by a rounding error.
  at::Tensor teacher = teacher_probabilities.to(at::kFloat).clamp_min(0);
  if (mode.kind == DistillationMode::Kind::smooth) {
    const double total = 1 + mode.smoothing * static_cast<double>(top + 1);
    student = (student + mode.smoothing) / total;
    teacher = (teacher + mode.smoothing) / total;
  } else {
    student = student.narrow(-1, 0, top);
    teacher = teacher.narrow(-1, 0, top);
  }
  return (at::xlogy(teacher, teacher) - teacher * at::log(student.clamp_min(least))).sum(-1);
}

at::Tensor distillation_loss(const at::Tensor& logits, const at::Tensor& teacher_probabilities,
                             const at::Tensor& teacher_indices, const DistillationMode& mode) {
  const int64_t positions = logits.size(1) / 2;
  const at::Tensor last = logits.narrow(1, logits.size(1) - positions, positions);
  return listed_divergence(last, teacher_probabilities, teacher_indices, mode).sum() /
         static_cast<double>(logits.size(0) * positions);
}

at::Tensor top_divergence(const at::Tensor& logits, const at::Tensor& teacher_logits, int64_t top,
                          const DistillationMode& mode) {
  const at::Tensor all = at::softmax(teacher_logits.to(at::kFloat), -1);
  const auto [best, indices] = all.topk(std::min(top, all.size(-1)), -1);
  return listed_divergence(logits, at::cat({best, 1.0 - best.sum(-1, true)}, -1), indices, mode);
}

at::Tensor divergence(const at::Tensor& logits, const at::Tensor& teacher_logits) {
  const at::Tensor student = at::log_softmax(logits.to(at::kFloat), -1);
  const at::Tensor teacher = at::log_softmax(teacher_logits.to(at::kFloat), -1);
  return (at::exp(teacher) * (teacher - student)).sum(-1);
}

}  // namespace cepe::model
