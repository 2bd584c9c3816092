#include "model/page_masses.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <vector>

#include "model/attention.h"
#include "ops/int8_rows.h"
#include "ops/paged_attention.h"

namespace cepe::model {
namespace {

// Each page of a context as a sequence of its own: of its states, or of the K that are kept of a layer, which serve as
// values here: only what the scores sum to is wanted.
ops::PageTable table_by_page(const ContextStates& context, int64_t layer) {
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
  table.first_page = at::arange(static_cast<int64_t>(context.pages.size()) + 1, pages.first_page.options());
  return table;
}

// Log-sum-exps of a query's scores over each page alone: query [1, H, D] -> [pages, H].
at::Tensor page_log_sum_exps(const CrossAttention& block, const at::Tensor& query, const ContextStates& context,
                             const HeadShape& shape, int64_t layer) {
  const bool kept = !context.kept.empty();
  const auto pages = static_cast<int64_t>(context.pages.size());
  const ops::PageTable table = table_by_page(context, layer);
  const int64_t each = kept ? shape.heads / shape.groups : shape.heads;
  const at::Tensor first_row = at::arange(0, pages * each + 1, each, table.first_page.options());
  const at::Tensor absorbed = kept ? at::Tensor() : absorbed_queries(block, query, shape);
  if (query.is_cpu() || (query.scalar_type() == at::kBFloat16 && ops::takes_paged_attention(table, query.device()))) {
    const at::Tensor rows = kept ? query.reshape({shape.groups, -1, shape.width}).transpose(0, 1) : absorbed;
    // Always a copy, and the last thing before: a GPU reads the tables before that kernel is over (paged_attention.h).
    const at::Tensor of_pages = rows.unsqueeze(0).expand({pages, -1, -1, -1}).clone(at::MemoryFormat::Contiguous);
    return ops::paged_attention({of_pages.flatten(0, 1), first_row, each}, table, scale_of(shape), query.scalar_type())
        .log_sum_exp.reshape({pages, -1});
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

namespace {

// Pages asked about by one call: bounds the memory of their queries and of what comes back.
constexpr int64_t most_pages_of_a_call = 1024;

ops::PageTable some_pages(const ops::PageTable& table, int64_t first, int64_t count) {
  ops::PageTable some = table;
  some.first_page = table.first_page.narrow(0, 0, count + 1);
  some.rows = table.rows.narrow(0, first, count);
  some.keys = table.keys.narrow(0, first, count);
  return some;
}

}  // namespace

void add_step_masses(const StepMasses& masses, const at::Tensor& rows, const at::Tensor& log_sum_exp, double scale,
                     int64_t layer) {
  const ops::PageTable& table = masses.pages.at(masses.pages.size() == 1 ? 0 : static_cast<size_t>(layer));
  const int64_t pages = masses.of.size(0), sequences = masses.sequences, each = rows.size(0) / sequences;
  const at::Tensor by_sequence = rows.reshape({sequences, each, rows.size(1), rows.size(2)});
  const at::Tensor whole = log_sum_exp.reshape({sequences, -1});
  for (int64_t first = 0; first < pages; first += most_pages_of_a_call) {
    const int64_t count = std::min(most_pages_of_a_call, pages - first);
    const at::Tensor of = masses.of.narrow(0, first, count);
    const at::Tensor asked = by_sequence.index_select(0, of).flatten(0, 1);  // [count * R, G, D]
    const at::Tensor bounds = masses.first_row.narrow(0, 0, count + 1);
    const at::Tensor found =
        ops::paged_attention({asked, bounds, each}, some_pages(table, first, count), scale, rows.scalar_type())
            .log_sum_exp.reshape({count, -1});
    const at::Tensor shares = at::exp(found - whole.index_select(0, of)).mean(1);
    at::Tensor(masses.sum).narrow(0, first, count).add_(shares, masses.part_of_layer);
  }
}

void add_page_masses(const CrossAttention& block, const at::Tensor& query, const ContextStates& context,
                     const HeadShape& shape, int64_t layer, ContextMass& mass) {
  const at::Tensor shares = at::softmax(page_log_sum_exps(block, query, context, shape, layer), 0).mean(1);  // [pages]
  mass.sum = mass.sum.defined() ? mass.sum + shares : shares;
  ++mass.layers;
}

}  // namespace cepe::model
