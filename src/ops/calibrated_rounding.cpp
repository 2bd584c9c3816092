#include "ops/calibrated_rounding.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <string>

#include "base/error.h"
#include "ops/flat_weight.h"
#include "ops/triangular.h"

namespace cepe::ops {
namespace {

constexpr double largest_e4m3 = 448;
// Of the diagonal's mean, added to it. GPTQ has 0.01; on text of the calibration's kind that is hardly better, on text
// of another kind much worse.
constexpr double damping = 0.1;
constexpr int64_t block_columns = 128;  // whose errors reach all later columns in one product

[[noreturn]] void refuse(const std::string& message) {
  throw base::Error(base::ErrorCode::invalid_argument, "calibrated rounding: " + message);
}

// The columns' order and U of the moments so ordered, float32.
struct Feedback {
  at::Tensor order;  // [in] int64
  at::Tensor upper;  // [in, in]
};

Feedback feedback_of(const at::Tensor& moments) {
  const at::Tensor diagonal = moments.diagonal().to(at::kDouble);
  const at::Tensor order = at::argsort(diagonal, /*stable=*/true, 0, /*descending=*/true);
  // U D U^T is the Cholesky factor of the matrix from its last row and column to its first.
  const at::Tensor backward = order.flip(0);
  at::Tensor matrix = moments.index_select(0, backward).index_select(1, backward).to(at::kDouble);
  const at::Tensor added = diagonal.mean() * damping;
  matrix.diagonal().add_(at::where(added.gt(0), added, at::ones_like(added)));
  const at::Tensor lower = cholesky(matrix);
  const at::Tensor unit = lower / lower.diagonal().unsqueeze(0);
  return {order, unit.flip({0, 1}).to(at::kFloat).contiguous()};
}

at::Tensor to_nearest(const at::Tensor& scaled) {
  return scaled.clamp(-largest_e4m3, largest_e4m3).to(at::kFloat8_e4m3fn);
}

// scaled [in, out]: weights over their row's scale, a column of the weight a row here, so that it lies in one piece.
// -> the codes' bits [in, out]. Works in `scaled`, which ends as w + the feedback that each column got.
at::Tensor round_with_feedback(at::Tensor& scaled, const at::Tensor& upper) {
  const at::Tensor codes = at::empty(scaled.sizes(), scaled.options().dtype(at::kByte));
  const int64_t in = scaled.size(0);
  const at::Tensor weights = scaled.clone();
  for (int64_t first = 0; first < in; first += block_columns) {
    const int64_t count = std::min(block_columns, in - first), next = first + count;
    const at::Tensor errors = at::empty({count, scaled.size(1)}, scaled.options());
    for (int64_t i = 0; i < count; ++i) {
      const at::Tensor code = to_nearest(scaled[first + i]);
      codes[first + i].copy_(code.view(at::kByte));
      errors[i].copy_(weights[first + i]).sub_(code.to(at::kFloat));
      if (i + 1 == count) break;
      at::Tensor behind = scaled.narrow(0, first + i + 1, count - i - 1);
      behind.addmm_(upper[first + i].narrow(0, first + i + 1, count - i - 1).unsqueeze(1), errors.narrow(0, i, 1));
    }
    if (next < in) {
      scaled.narrow(0, next, in - next).addmm_(upper.narrow(0, first, count).narrow(1, next, in - next).t(), errors);
    }
  }
  return codes;
}

}  // namespace

PackedWeight quantise_calibrated(const at::Tensor& dense, const at::Tensor& moments) {
  const at::NoGradGuard none;
  if (dense.dim() != 2 || !dense.is_floating_point()) refuse("expected a matrix [out, in] of floating-point numbers");
  if (moments.dim() != 2 || moments.size(0) != dense.size(1) || moments.size(1) != dense.size(1)) {
    refuse("expected moments [in, in] of the weight's " + std::to_string(dense.size(1)) + " inputs");
  }
  constexpr double smallest_scale = 1e-30;  // of a row of zeros
  const at::Tensor weights = dense.to(at::kFloat);
  const at::Tensor largest = at::full({}, largest_e4m3, weights.options());
  const at::Tensor scale = (weights.abs().amax(1) / largest).clamp_min(smallest_scale);
  const Feedback feedback = feedback_of(moments);
  at::Tensor scaled = (weights / scale.unsqueeze(1)).t().index_select(0, feedback.order);
  const at::Tensor codes = round_with_feedback(scaled, feedback.upper);
  const at::Tensor ordered = at::empty_like(codes);
  ordered.index_copy_(0, feedback.order, codes);
  return flat_from_rows(PackedFormat::fp8_row, ordered.t().contiguous(), scale);
}

}  // namespace cepe::ops
