#include "ops/calibrated_rounding.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/error.h"
#include "ops/flat_weight.h"
#include "ops/triangular.h"

namespace cepe::ops {
namespace {

constexpr double largest_e4m3 = 448;
// Of the diagonal's mean, added to it. GPTQ has 0.01; on text of the calibration's kind that is hardly better, on text
// of another kind much worse.
constexpr double damping = 0.1;
constexpr int64_t block_columns = 128;              // whose errors reach all later columns in one product
constexpr int64_t tried_scales = 8;                 // of each row
constexpr int64_t piece_values = int64_t{1} << 28;  // rounded at one time: 1 GB, a few times over

[[noreturn]] void refuse(const std::string& message) {
  throw base::Error(base::ErrorCode::invalid_argument, "calibrated rounding: " + message);
}

// The columns' order; U and D of the moments so ordered, float32.
struct Feedback {
  at::Tensor order;     // [in] int64
  at::Tensor upper;     // [in, in]
  at::Tensor diagonal;  // [in]
};

Feedback feedback_of(const at::Tensor& moments) {
  const at::Tensor seen = moments.diagonal().to(at::kDouble);
  const at::Tensor order = at::argsort(seen, /*stable=*/true, 0, /*descending=*/true);
  // U D U^T is the Cholesky factor of the matrix from its last row and column to its first.
  const at::Tensor backward = order.flip(0);
  at::Tensor matrix = moments.index_select(0, backward).index_select(1, backward).to(at::kDouble);
  const at::Tensor added = seen.mean() * damping;
  matrix.diagonal().add_(at::where(added.gt(0), added, at::ones_like(added)));
  const at::Tensor lower = cholesky(matrix), roots = lower.diagonal();
  const at::Tensor unit = lower / roots.unsqueeze(0);
  return {order, unit.flip({0, 1}).to(at::kFloat).contiguous(), roots.square().flip(0).to(at::kFloat)};
}

struct Rounded {
  at::Tensor codes;  // the bits of e4m3 [in, columns]
  at::Tensor costs;  // [columns]: sum over k of D_k |e_k + sum_{j<k} e_j U_jk|^2
};

// weights [in, columns] over their scales: a row of the matrix is a column here, so that what is rounded together lies
// in one piece.
Rounded round_with_feedback(const at::Tensor& weights, const Feedback& feedback) {
  const int64_t in = weights.size(0);
  Rounded rounded = {at::empty(weights.sizes(), weights.options().dtype(at::kByte)),
                     at::zeros({weights.size(1)}, weights.options())};
  at::Tensor wanted = weights.clone();  // each weight and what has to be made up for
  for (int64_t first = 0; first < in; first += block_columns) {
    const int64_t count = std::min(block_columns, in - first), next = first + count;
    const at::Tensor errors = at::empty({count, weights.size(1)}, weights.options());
    for (int64_t i = 0; i < count; ++i) {
      const at::Tensor code = wanted[first + i].clamp(-largest_e4m3, largest_e4m3).to(at::kFloat8_e4m3fn);
      rounded.codes[first + i].copy_(code.view(at::kByte));
      errors[i].copy_(weights[first + i]).sub_(code.to(at::kFloat));
      if (i + 1 == count) break;
      wanted.narrow(0, first + i + 1, count - i - 1)
          .addmm_(feedback.upper[first + i].narrow(0, first + i + 1, count - i - 1).unsqueeze(1),
                  errors.narrow(0, i, 1));
    }
    const at::Tensor made_up = wanted.narrow(0, first, count) - weights.narrow(0, first, count);
    rounded.costs.add_(
        (made_up.add_(errors).square_() * feedback.diagonal.narrow(0, first, count).unsqueeze(1)).sum(0));
    if (next < in) {
      wanted.narrow(0, next, in - next)
          .addmm_(feedback.upper.narrow(0, first, count).narrow(1, next, in - next).t(), errors);
    }
  }
  return rounded;
}

struct Rows {
  at::Tensor codes;   // [rows, in]
  at::Tensor scales;  // [rows]
};

// weights [rows, in] float32: each row with all scales tried side by side, and the best of them kept.
Rows round_rows(const at::Tensor& weights, const Feedback& feedback) {
  const int64_t rows = weights.size(0), in = weights.size(1);
  constexpr double smallest_scale = 1e-30;  // of a row of zeros
  const at::Tensor largest = at::full({}, largest_e4m3, weights.options());
  const at::Tensor steps = at::arange(tried_scales, weights.options()).div(tried_scales).exp2();
  const at::Tensor scales =
      (weights.abs().amax(1) / largest).clamp_min(smallest_scale).unsqueeze(0) * steps.unsqueeze(1);  // [S, rows]
  const at::Tensor ordered = weights.t().index_select(0, feedback.order).unsqueeze(1);                // [in, 1, rows]
  const Rounded rounded = round_with_feedback((ordered / scales).reshape({in, -1}), feedback);
  const at::Tensor costs = rounded.costs.reshape(scales.sizes()) * scales.square();
  const at::Tensor best = costs.argmin(0, /*keepdim=*/true);  // [1, rows]
  const at::Tensor codes =
      rounded.codes.reshape({in, tried_scales, rows}).gather(1, best.unsqueeze(0).expand({in, 1, rows})).squeeze(1);
  const at::Tensor in_place = at::empty_like(codes);
  in_place.index_copy_(0, feedback.order, codes);
  return {in_place.t().contiguous(), scales.gather(0, best).squeeze(0)};
}

}  // namespace

PackedWeight quantise_calibrated(const at::Tensor& dense, const at::Tensor& moments) {
  const at::NoGradGuard none;
  if (dense.dim() != 2 || !dense.is_floating_point()) refuse("expected a matrix [out, in] of floating-point numbers");
  if (moments.dim() != 2 || moments.size(0) != dense.size(1) || moments.size(1) != dense.size(1)) {
    refuse("expected moments [in, in] of the weight's " + std::to_string(dense.size(1)) + " inputs");
  }
  const Feedback feedback = feedback_of(moments);
  const int64_t piece = std::max<int64_t>(1, piece_values / std::max<int64_t>(1, dense.size(1)) / tried_scales);
  std::vector<at::Tensor> codes, scales;
  for (int64_t first = 0; first < dense.size(0); first += piece) {
    const int64_t count = std::min(piece, dense.size(0) - first);
    const Rows rows = round_rows(dense.narrow(0, first, count).to(at::kFloat), feedback);
    codes.push_back(rows.codes);
    scales.push_back(rows.scales);
  }
  return flat_from_rows(PackedFormat::fp8_row, at::cat(codes), at::cat(scales));
}

}  // namespace cepe::ops
