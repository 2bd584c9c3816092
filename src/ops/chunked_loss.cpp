#include "ops/chunked_loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <string>

#include "base/error.h"
#include "ops/first_order.h"
#include "ops/fused.h"
#include "ops/row_cross_entropy.h"

namespace cepe::ops {
namespace {

using base::Error;
using base::ErrorCode;

struct Wants {
  bool hidden, weight;
  bool any() const { return hidden || weight; }
};

struct LossAndGradients {
  at::Tensor loss;    // scalar float32
  at::Tensor hidden;  // [N, C] of hidden's type; undefined where not wanted
  at::Tensor weight;  // [V, C] float32; likewise
};

using Computation = std::function<LossAndGradients(Wants)>;

// What was computed in the forward pass, scaled in the backward pass.
struct ComputedLoss : torch::autograd::Function<ComputedLoss> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& /*hidden*/,
                            const at::Tensor& weight, const Computation& compute, Wants wants) {
    LossAndGradients result = compute(wants);
    context->save_for_backward({result.hidden, result.weight});
    context->saved_data["weight_type"] = static_cast<int64_t>(weight.scalar_type());
    return result.loss;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    refuse_second_derivative("chunked loss");
    const auto saved = context->get_saved_variables();
    const auto weight_type = static_cast<at::ScalarType>(context->saved_data["weight_type"].toInt());
    torch::autograd::variable_list scaled(4);
    if (saved[0].defined()) scaled[0] = saved[0] * gradients[0];
    if (saved[1].defined()) scaled[1] = (saved[1] * gradients[0]).to(weight_type);
    return scaled;
  }
};

at::Tensor computed(const at::Tensor& hidden, const at::Tensor& weight, const Computation& compute) {
  const Wants wants = {is_differentiated(hidden), is_differentiated(weight)};
  if (wants.any()) return ComputedLoss::apply(hidden, weight, compute, wants);
  const at::NoGradGuard none;
  return compute(wants).loss;
}

void check_shapes(const at::Tensor& hidden, const at::Tensor& weight, int64_t rows_per_chunk) {
  const bool sizes = hidden.dim() == 2 && weight.dim() == 2 && weight.size(0) > 0 && hidden.size(1) == weight.size(1);
  if (!sizes) {
    throw Error(ErrorCode::invalid_argument, c10::str("loss of logits: hidden ", hidden.sizes(), " and weight ",
                                                      weight.sizes(), "; expected [N, C] and [V, C], V at least 1"));
  }
  const at::ScalarType type = hidden.scalar_type();
  if (!suits_kernels(hidden, type, hidden.device()) || weight.device() != hidden.device()) {
    throw Error(ErrorCode::invalid_argument,
                c10::str("loss of logits: hidden of ", type, " on ", hidden.device(), ", weight on ", weight.device(),
                         "; expected float32 or bfloat16, both on one device"));
  }
  if (rows_per_chunk < 0) {
    throw Error(ErrorCode::invalid_argument,
                "loss of logits: rows_per_chunk " + std::to_string(rows_per_chunk) + "; expected 0 or more");
  }
}

void check_labels(const at::Tensor& labels, const at::Tensor& hidden, int64_t vocabulary) {
  if (labels.dim() != 1 || labels.size(0) != hidden.size(0) || labels.scalar_type() != at::kLong ||
      labels.device() != hidden.device()) {
    throw Error(ErrorCode::invalid_argument,
                c10::str("linear_cross_entropy: labels ", labels.sizes(), " of ", labels.scalar_type(), " on ",
                         labels.device(), "; expected [", hidden.size(0), "] of Long on ", hidden.device()));
  }
  if (!labels.is_cpu()) return;
  const auto* values = labels.const_data_ptr<int64_t>();
  for (int64_t row = 0; row < labels.size(0); ++row) {
    if (values[row] == ignored_label || (values[row] >= 0 && values[row] < vocabulary)) continue;
    throw Error(ErrorCode::invalid_argument, c10::str("linear_cross_entropy: label ", values[row], " in row ", row,
                                                      "; expected ", ignored_label, " or 0 to ", vocabulary - 1));
  }
}

int64_t chunk_rows(const at::Tensor& hidden, int64_t vocabulary, int64_t asked) {
  if (asked > 0) return std::min(asked, std::max<int64_t>(hidden.size(0), 1));
  constexpr int64_t bytes = int64_t{256} << 20, tile = 128;  // rows that products take at once
  const int64_t fitting = bytes / (vocabulary * static_cast<int64_t>(hidden.element_size()));
  const int64_t rows = fitting >= tile ? fitting / tile * tile : std::max<int64_t>(fitting, 1);
  return std::min(rows, std::max<int64_t>(hidden.size(0), 1));
}

// sum += a^T b in float32; undefined stands for nothing yet.
void add_product(at::Tensor& sum, const at::Tensor& a, const at::Tensor& b) {
  const bool widened_by_product = a.is_cuda() && a.scalar_type() != at::kFloat;
  const at::Tensor product = widened_by_product ? at::mm(a.t(), b, at::kFloat) : at::mm(a.t(), b).to(at::kFloat);
  if (sum.defined()) {
    sum.add_(product);
  } else {
    sum = product;
  }
}

// logits_of(rows of hidden, transposed weight) -> logits; gradient_of(logits, first) -> their gradient, undefined where
// there is none.
template <class LogitsOf, class GradientOf>
void over_chunks(const at::Tensor& hidden, const at::Tensor& weight, int64_t chunk, Wants wants,
                 LossAndGradients& result, const LogitsOf& logits_of, const GradientOf& gradient_of) {
  const at::Tensor weight_of_type = weight.to(hidden.scalar_type());
  if (wants.hidden) result.hidden = at::empty_like(hidden, at::MemoryFormat::Contiguous);
  for (int64_t first = 0; first < hidden.size(0); first += chunk) {
    const at::Tensor rows = hidden.narrow(0, first, std::min(chunk, hidden.size(0) - first));
    const at::Tensor gradient = gradient_of(logits_of(rows, weight_of_type.t()), first);
    if (wants.hidden) {
      at::Tensor own = result.hidden.narrow(0, first, rows.size(0));
      if (gradient.defined()) {
        at::mm_out(own, gradient, weight_of_type);
      } else {
        own.zero_();
      }
    }
    if (wants.weight && gradient.defined()) add_product(result.weight, gradient, rows);
  }
  if (wants.weight && !result.weight.defined()) {
    result.weight = at::zeros(weight.sizes(), weight.options().dtype(at::kFloat));
  }
}

}  // namespace

at::Tensor linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels_given,
                                double cap, int64_t rows_per_chunk) {
  check_shapes(hidden, weight, rows_per_chunk);
  const at::Tensor labels = labels_given.contiguous();
  check_labels(labels, hidden, weight.size(0));
  return computed(hidden, weight, [&](Wants wants) {
    LossAndGradients result;
    const at::TensorOptions options = hidden.options().requires_grad(false);
    const at::Tensor scale = labels.ne(ignored_label).sum().clamp_min(1).to(at::kFloat).reciprocal();
    const at::Tensor losses = at::empty({hidden.size(0)}, options.dtype(at::kFloat));
    const int64_t chunk = chunk_rows(hidden, weight.size(0), rows_per_chunk);
    const at::Tensor buffer = logits_buffer(chunk, weight.size(0), options);
    over_chunks(
        hidden, weight, chunk, wants, result,
        [&](const at::Tensor& rows, const at::Tensor& columns) {
          at::Tensor logits = buffer.narrow(0, 0, rows.size(0));
          at::mm_out(logits, rows, columns);
          return logits;
        },
        [&](const at::Tensor& logits, int64_t first) {
          const auto own = [&](const at::Tensor& all) { return all.narrow(0, first, logits.size(0)); };
          row_cross_entropy(logits, own(labels), scale, cap, wants.any(), own(losses));
          return wants.any() ? logits : at::Tensor();
        });
    result.loss = losses.sum() * scale;
    return result;
  });
}

at::Tensor chunked_loss(const at::Tensor& hidden, const at::Tensor& weight, const LossOfLogits& loss,
                        int64_t rows_per_chunk) {
  check_shapes(hidden, weight, rows_per_chunk);
  return computed(hidden, weight, [&](Wants wants) {
    LossAndGradients result;
    result.loss = at::zeros({}, hidden.options().dtype(at::kFloat).requires_grad(false));
    over_chunks(
        hidden, weight, chunk_rows(hidden, weight.size(0), rows_per_chunk), wants, result,
        [](const at::Tensor& rows, const at::Tensor& columns) { return at::mm(rows, columns); },
        [&](const at::Tensor& logits, int64_t first) {
          const at::AutoGradMode followed(wants.any());
          const at::Tensor leaf = logits.detach().requires_grad_(wants.any());
          const at::Tensor own = loss(leaf, first, leaf.size(0));
          if (!own.defined() || own.numel() != 1) {
            throw Error(ErrorCode::invalid_argument,
                        c10::str("chunked_loss: a loss of sizes ", own.defined() ? own.sizes() : at::IntArrayRef(),
                                 "; expected a scalar"));
          }
          result.loss.add_(own.detach().reshape({}));
          if (!wants.any() || !own.requires_grad()) return at::Tensor();
          return torch::autograd::grad({own}, {leaf}, {}, std::nullopt, false, true)[0];
        });
    return result;
  });
}

}  // namespace cepe::ops
