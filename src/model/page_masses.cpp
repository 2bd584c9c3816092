#include "model/page_masses.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <vector>

#include "model/attention.h"
#include "ops/int8_context.h"
#include "ops/int8_rows.h"
#include "ops/page_log_sum_exps.h"

namespace cepe::model {
namespace {

// The pages of a context, of its states or of the K that are kept of a layer.
ops::PageTable key_pages(const ContextStates& context, int64_t layer) {
  const ops::PageTable& pages = *context.table();
  ops::PageTable table = pages;
  if (!context.kept.empty()) {
    const at::Tensor& keys = context.kept.at(static_cast<size_t>(layer)).keys;
    table = ops::page_form(keys, keys);
    table.rows = pages.rows;
    table.page_rows = pages.page_rows;
    const at::Tensor first = at::cumsum(pages.rows, 0, at::kLong) - pages.rows;
    table.keys = first * (keys.stride(0) * static_cast<int64_t>(keys.itemsize())) + ops::address_of(keys);
  }
  return table;
}

// Log-sum-exps of a query's scores over each page alone: query [1, H, D] -> [pages, H].
at::Tensor log_sum_exps(const CrossAttention& block, const at::Tensor& query, const ContextStates& context,
                        const HeadShape& shape, int64_t layer) {
  const bool kept = !context.kept.empty();
  if (kept && context.kept.front().in_8_bits) {
    const at::Tensor rows = ops::rows_of_groups(query, shape.groups).to(at::kFloat);
    return ops::int8_page_log_sum_exps(rows, *context.kept.at(static_cast<size_t>(layer)).in_8_bits, scale_of(shape))
        .flatten(1);
  }
  const ops::PageTable table = key_pages(context, layer);
  const at::Tensor absorbed = kept ? at::Tensor() : absorbed_queries(block, query, shape);
  if (query.is_cpu() || (query.scalar_type() == at::kBFloat16 && ops::takes_paged_attention(table, query.device()))) {
    const at::Tensor rows = kept ? ops::rows_of_groups(query, shape.groups) : absorbed.contiguous();
    const at::Tensor of = at::zeros({table.keys.size(0)}, table.keys.options());
    return ops::page_log_sum_exps(rows, 1, of, table, scale_of(shape)).flatten(1);
  }
  std::vector<at::Tensor> parts;  // [H] a page
  int64_t first = 0;
  for (const at::Tensor& page : context.pages) {
    const at::Tensor keys = kept ? context.kept.at(static_cast<size_t>(layer)).keys.narrow(0, first, page.size(0))
                                 : ops::unpacked_rows(page, query.scalar_type()).unsqueeze(1);
    AttentionInParts attention(kept ? query : absorbed, scale_of(shape));
    attention.read(keys, keys);
    parts.push_back(attention.log_sum_exp().reshape({-1}));
    first += page.size(0);
  }
  return at::stack(parts, 0);
}

}  // namespace

void add_page_masses(const CrossAttention& block, const at::Tensor& query, const ContextStates& context,
                     const HeadShape& shape, int64_t layer, ContextMass& mass) {
  const at::Tensor shares = at::softmax(log_sum_exps(block, query, context, shape, layer), 0).mean(1);  // [pages]
  mass.sum = mass.sum.defined() ? mass.sum + shares : shares;
  ++mass.layers;
}

void add_step_masses(const StepMasses& masses, const at::Tensor& rows, const at::Tensor& log_sum_exp, double scale,
                     int64_t layer) {
  const ops::PageTable& table = masses.pages.at(masses.pages.size() == 1 ? 0 : static_cast<size_t>(layer));
  const at::Tensor whole = log_sum_exp.reshape({masses.sequences, -1}).index_select(0, masses.of);  // [P, R * G]
  const at::Tensor found = ops::page_log_sum_exps(rows, masses.sequences, masses.of, table, scale).flatten(1);
  at::Tensor(masses.sum).add_(at::exp(found - whole).mean(1), masses.part_of_layer);
}

}  // namespace cepe::model
