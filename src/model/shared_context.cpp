#include "model/shared_context.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <memory>

#include "model/attention.h"

namespace cepe::model {
namespace {

using Slice = SharedContext::Slice;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Rows of [B, M, G, D] that a window sees: its own text's, then those of the next text.
at::Tensor seen(const at::Tensor& rows, const Slice& slice) {
  const at::Tensor own = rows.narrow(1, slice.first, slice.rows);
  return slice.others == 0 ? own : at::cat({own, rows.narrow(1, 0, slice.others).roll(-1, 0)}, 1);
}

// The reverse: what comes back for those rows is added where they lie.
void add_seen(at::Tensor& rows, const at::Tensor& gradient, const Slice& slice) {
  rows.narrow(1, slice.first, slice.rows).add_(gradient.narrow(1, 0, slice.rows));
  if (slice.others > 0) rows.narrow(1, 0, slice.others).add_(gradient.narrow(1, slice.rows, slice.others).roll(1, 0));
}

// One window's attention with a graph of its own, between the forward and the backward pass.
struct Window {
  int64_t index = 0;
  at::Tensor queries, keys, values, output;
};

struct Windows : torch::CustomClassHolder {
  std::vector<Slice> slices;
  std::vector<Window> seeing;
};

struct AttendedWindows : torch::autograd::Function<AttendedWindows> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& queries, const at::Tensor& keys,
                            const at::Tensor& values, const std::shared_ptr<std::vector<Slice>>& slices, double scale) {
    auto windows = c10::make_intrusive<Windows>();
    windows->slices = *slices;
    at::Tensor outputs = at::empty(queries.sizes(), queries.options());
    for (int64_t w = 0; w < queries.size(0); ++w) {
      const Slice& slice = windows->slices[static_cast<size_t>(w)];
      if (slice.rows + slice.others == 0) {
        outputs[w].zero_();
        continue;
      }
      const auto leaf = [](const at::Tensor& x) { return x.detach().requires_grad_(); };
      Window window = {w, leaf(queries[w]), leaf(seen(keys, slice)), leaf(seen(values, slice)), {}};
      {
        const at::AutoGradMode enabled(true);
        window.output = attend_batch(window.queries, window.keys, window.values, scale);
      }
      outputs[w].copy_(window.output.detach());
      windows->seeing.push_back(std::move(window));
    }
    context->saved_data["windows"] = c10::IValue::make_capsule(windows);
    context->saved_data["rows"] = keys.sizes();
    return outputs;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto windows = c10::static_intrusive_pointer_cast<Windows>(context->saved_data["windows"].toCapsule());
    const at::Tensor& of_outputs = gradients[0];
    at::Tensor of_queries = at::empty(of_outputs.sizes(), of_outputs.options());
    at::Tensor of_keys = at::zeros(context->saved_data["rows"].toIntVector(), of_outputs.options());
    at::Tensor of_values = at::zeros(of_keys.sizes(), of_keys.options());
    size_t next = 0;
    for (int64_t w = 0; w < of_outputs.size(0); ++w) {
      if (next == windows->seeing.size() || windows->seeing[next].index != w) {
        of_queries[w].zero_();
        continue;
      }
      Window window = std::move(windows->seeing[next++]);
      const variable_list found = torch::autograd::grad({window.output}, {window.queries, window.keys, window.values},
                                                        {of_outputs[w]}, false, false, false);
      const Slice& slice = windows->slices[static_cast<size_t>(w)];
      of_queries[w].copy_(found[0]);
      add_seen(of_keys, found[1], slice);
      add_seen(of_values, found[2], slice);
    }
    windows->seeing.clear();
    return {of_queries, of_keys, of_values, {}, {}};
  }
};

}  // namespace

at::Tensor attend_windows(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                          const std::vector<Slice>& slices, double scale) {
  if (at::GradMode::is_enabled() && (queries.requires_grad() || keys.requires_grad() || values.requires_grad()))
    return AttendedWindows::apply(queries, keys, values, std::make_shared<std::vector<Slice>>(slices), scale);
  at::Tensor outputs = at::zeros(queries.sizes(), queries.options());
  for (int64_t w = 0; w < queries.size(0); ++w) {
    const Slice& slice = slices[static_cast<size_t>(w)];
    if (slice.rows + slice.others == 0) continue;
    outputs[w].copy_(attend_batch(queries[w], seen(keys, slice), seen(values, slice), scale));
  }
  return outputs;
}

}  // namespace cepe::model
