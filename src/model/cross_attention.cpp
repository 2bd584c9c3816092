#include "model/cross_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <mutex>

#include "base/error.h"
#include "model/attention.h"
#include "model/cost_model.h"
#include "model/packed_context.h"
#include "model/page_masses.h"
#include "model/shared_context.h"
#include "model/step_tables.h"
#include "ops/head_product.h"
#include "ops/int8_context.h"
#include "ops/int8_product.h"
#include "ops/int8_rows.h"
#include "ops/large_pages.h"
#include "ops/mixed_linear.h"
#include "ops/row_attention.h"
#include "ops/tuned_product.h"

namespace cepe::model {
namespace {

// Context rows whose K and V stand in scratch at one time: bounds memory at any context length. Many query rows have
// larger tiles, since each tile's [T, H, D] is merged in float32 with those before it.
int64_t tile_rows(int64_t query_rows) { return query_rows >= 4096 ? 65536 : query_rows >= 1024 ? 32768 : 8192; }

bool follows(const at::Tensor& page, const at::Tensor& before) {
  const auto plain = [](const at::Tensor& rows) { return rows.is_contiguous() && !rows.requires_grad(); };
  return plain(page) && plain(before) && page.scalar_type() == before.scalar_type() &&
         page.device() == before.device() &&
         page.const_data_ptr() == static_cast<const std::byte*>(before.const_data_ptr()) + before.nbytes();
}

at::ScalarType unpacked_type(const at::Tensor& page) { return page.is_cpu() ? at::kFloat : at::kBFloat16; }

// Pages under one another. Those that stand so in memory already, as a document's do that was encoded or fetched in one
// piece, are taken where they are.
// Packed ones are unpacked (on a CPU exactly), neighbours of one length by one call.
at::Tensor joined_pages(const std::vector<at::Tensor>& pages) {
  std::vector<at::Tensor> runs;
  if (ops::is_int8_rows(pages.front())) {
    for (size_t first = 0, end = 0; first < pages.size(); first = end) {
      while (end < pages.size() && pages[end].size(0) == pages[first].size(0)) ++end;
      const std::vector<at::Tensor> alike(pages.begin() + static_cast<std::ptrdiff_t>(first),
                                          pages.begin() + static_cast<std::ptrdiff_t>(end));
      runs.push_back(ops::unpacked_rows(at::stack(alike), unpacked_type(alike.front())).flatten(0, 1));
    }
    return runs.size() == 1 ? runs.front() : at::cat(runs, 0);
  }
  for (size_t first = 0, end = 0; first < pages.size(); first = end) {
    int64_t rows = pages[first].size(0);
    for (end = first + 1; end < pages.size() && follows(pages[end], pages[end - 1]); ++end) rows += pages[end].size(0);
    const at::Tensor& page = pages[first];
    const auto together = [&] {
      const auto keep = [held = pages](void*) {};
      return at::from_blob(page.data_ptr(), {rows, page.size(1)}, keep, page.options(), page.device());
    };
    runs.push_back(end == first + 1 ? page : together());
  }
  return runs.size() == 1 ? runs.front() : at::cat(runs, 0);
}

// Pages joined into tiles of at most `most` rows (a larger single page stands alone).
std::vector<at::Tensor> tiles(const ContextStates& context, int64_t most) {
  std::vector<at::Tensor> joined, open;
  int64_t rows = 0;
  const auto close = [&] {
    if (!open.empty()) joined.push_back(joined_pages(open));
    open.clear();
    rows = 0;
  };
  for (const at::Tensor& page : context.pages) {
    if (rows + page.size(0) > most) close();
    open.push_back(page);
    rows += page.size(0);
  }
  close();
  return joined;
}

ContextStates::Projected project(const CrossAttention& block, const at::Tensor& states, const HeadShape& shape) {
  const auto split = [&](const Linear& weight) {
    return forward(weight, states).reshape({-1, shape.groups, shape.width});
  };
  return {split(block.key), split(block.value)};
}

}  // namespace

double scale_of(const HeadShape& shape) { return 1 / std::sqrt(static_cast<double>(shape.width)); }

CrossAttentionCost cost_of(const ContextStates& context, int64_t rows, const HeadShape& shape) {
  return {.query_rows = rows,
          .context_rows = context.rows,
          .heads = shape.heads,
          .groups = shape.groups,
          .head_width = shape.width,
          .encoder_width = context.state_width(),
          .kept_available = !context.kept.empty(),
          .cpu = context.pages.front().is_cpu()};
}

namespace {

CrossAttentionPath choose(CrossAttentionPath wanted, const ContextStates& context, int64_t rows,
                          const HeadShape& shape) {
  if (wanted != CrossAttentionPath::automatic) return wanted;
  switch (cheapest(cost_of(context, rows, shape))) {
    case CheapestPath::kept:
      return CrossAttentionPath::kept;
    case CheapestPath::absorbed:
      return CrossAttentionPath::absorbed;
    case CheapestPath::projected:
      break;
  }
  return CrossAttentionPath::projected;
}

at::Tensor attend_in_8_bits(const at::Tensor& queries, const ops::Int8Context& context, double scale) {
  const at::Tensor rows = ops::rows_of_groups(queries, context.groups).to(at::kFloat);
  return ops::heads_of_groups(ops::int8_attention(rows, context, scale).output, queries.size(0))
      .to(queries.scalar_type());
}

at::Tensor attend(const CrossAttention& block, const at::Tensor& queries, const ContextStates& context,
                  CrossAttentionPath path, const HeadShape& shape, int64_t layer) {
  switch (choose(path, context, queries.size(0), shape)) {
    case CrossAttentionPath::kept: {
      if (context.kept.empty())
        throw base::Error(base::ErrorCode::invalid_argument, "cross-attention over kept K/V, but none were kept");
      const ContextStates::Projected& kept = context.kept.at(static_cast<size_t>(layer));
      if (kept.in_8_bits) return attend_in_8_bits(queries, *kept.in_8_bits, scale_of(shape));
      return attend_all(queries, kept.keys, kept.values, scale_of(shape));
    }
    case CrossAttentionPath::absorbed:
      return attend_absorbed(block, queries, context, shape);
    default:
      return attend_projected(block, queries, context, shape);
  }
}

}  // namespace

const std::shared_ptr<const ops::PageTable>& ContextStates::table() const {
  static std::mutex making;  // of any context's: engines on several threads may share one
  const std::lock_guard lock(making);
  if (!table_.made) {
    std::vector<std::vector<ops::RowPage>> one(1);
    for (const at::Tensor& page : pages) one.front().push_back({page.unsqueeze(1), page.unsqueeze(1)});
    table_.made = std::make_shared<ops::PageTable>(ops::page_table(one, pages.front().device()));
  }
  return table_.made;
}

int64_t ContextStates::Projected::bytes() const {
  return in_8_bits ? in_8_bits->bytes() : static_cast<int64_t>(keys.nbytes() + values.nbytes());
}

int64_t ContextStates::state_width() const { return ops::row_width(pages.front()); }

void ContextStates::append(const at::Tensor& page) {
  if (page.size(0) == 0) return;
  table_.made.reset();
  pages.push_back(page);
  rows += page.size(0);
}

bool CrossAttentionInput::active() const {
  if (shared) {
    return !blocks.empty() && std::any_of(shared->slices.begin(), shared->slices.end(),
                                          [](const auto& slice) { return slice.rows + slice.others > 0; });
  }
  const auto has_rows = [](const ContextStates* context) { return context && context->rows > 0; };
  return !blocks.empty() && std::any_of(contexts.begin(), contexts.end(), has_rows);
}

at::Tensor attend_projected(const CrossAttention& block, const at::Tensor& queries, const ContextStates& context,
                            const HeadShape& shape) {
  const std::vector<at::Tensor> parts = tiles(context, tile_rows(queries.size(0)));
  if (parts.size() == 1) {
    const ContextStates::Projected kv = project(block, parts.front(), shape);
    return attend_all(queries, kv.keys.to(queries.scalar_type()), kv.values.to(queries.scalar_type()), scale_of(shape));
  }
  AttentionInParts attention(queries, scale_of(shape));
  for (const at::Tensor& states : parts) {
    const ContextStates::Projected kv = project(block, states, shape);
    attention.read(kv.keys, kv.values);
  }
  return attention.output();
}

at::Tensor absorbed_queries(const CrossAttention& block, const at::Tensor& queries, const HeadShape& shape) {
  const at::Tensor key = dense_weight(block.key, queries.scalar_type()).reshape({shape.groups, shape.width, -1});
  const at::Tensor grouped = queries.reshape({-1, shape.groups, shape.heads / shape.groups, shape.width})
                                 .permute({1, 0, 2, 3})
                                 .reshape({shape.groups, -1, shape.width});
  // [G, T * H/G, D] x [G, D, E]; every head reads the same states: all H * T rows are query rows of one group.
  return at::bmm(grouped, key).reshape({-1, 1, key.size(2)});
}

namespace {

ContextStates unpacked(const ContextStates& context) {
  ContextStates dense;
  for (const at::Tensor& states : tiles(context, tile_rows(1))) dense.append(states);
  return dense;
}

}  // namespace

at::Tensor attend_absorbed(const CrossAttention& block, const at::Tensor& queries, const ContextStates& context,
                           const HeadShape& shape) {
  const int64_t rows = queries.size(0), each = shape.heads / shape.groups, encoder_width = context.state_width();
  // What paged_attention reads is made before the queries: it must not be the work of the kernel just before.
  ContextStates dense;
  if (queries.is_cuda() && ops::is_int8_rows(context.pages.front()) && rows * shape.heads > most_rows_over_packed)
    dense = unpacked(context);
  const ContextStates& states_read = dense.rows > 0 ? dense : context;
  at::Tensor bounds;  // of one sequence, likewise
  if (queries.is_cuda()) {
    const int64_t count = rows * shape.heads;
    bounds = at::arange(0, count + 1, count, queries.options().dtype(at::kInt));
  }
  const at::Tensor query_rows = absorbed_queries(block, queries, shape);  // [H * T, 1, E]
  const at::Tensor value =
      dense_weight(block.value, queries.scalar_type()).reshape({shape.groups, shape.width, encoder_width});

  at::Tensor gathered;  // [H * T, E]
  const bool differentiated =
      at::GradMode::is_enabled() && (query_rows.requires_grad() || context.pages.front().requires_grad());
  if (queries.is_cpu() && !differentiated) {
    std::vector<ops::RowPage> pages;
    for (const at::Tensor& page : context.pages) {
      const at::Tensor rows_of_states = ops::unpacked_rows(page, unpacked_type(page)).unsqueeze(1);
      pages.push_back({rows_of_states, rows_of_states});
    }
    gathered = ops::row_attention(query_rows.to(at::kFloat).contiguous(), pages, scale_of(shape)).output;
  } else if (!differentiated && queries.scalar_type() == at::kBFloat16 &&
             ops::takes_paged_attention(*states_read.table(), queries.device())) {
    gathered = ops::paged_attention({query_rows.contiguous(), bounds, query_rows.size(0)}, *states_read.table(),
                                    scale_of(shape), queries.scalar_type())
                   .output;
  } else {
    AttentionInParts attention(query_rows, scale_of(shape));
    for (const at::Tensor& states : tiles(states_read, tile_rows(1))) {
      const at::Tensor rows_of_states = states.unsqueeze(1);
      attention.read(rows_of_states, rows_of_states);
    }
    gathered = attention.output();
  }
  const at::Tensor summed = gathered.to(queries.scalar_type()).reshape({shape.groups, -1, encoder_width});
  const at::Tensor out = at::bmm(summed, value.transpose(1, 2));  // [G, T * H/G, D]
  return out.reshape({shape.groups, rows, each, shape.width})
      .permute({1, 0, 2, 3})
      .reshape({rows, shape.heads, shape.width});
}

namespace {

// Rows [M, 2 * G * D] of keys and values side by side.
ContextStates::Projected halves_of(const at::Tensor& both, const HeadShape& shape) {
  const auto half = [&](int64_t index) {
    return both.narrow(1, index * shape.groups * shape.width, shape.groups * shape.width)
        .unflatten(1, {shape.groups, shape.width});
  };
  return {half(0), half(1)};
}

// Keys and values of all rows side by side, by one product a tile, into the place where they stay.
ContextStates::Projected project_together(const CrossAttention& block, const std::vector<at::Tensor>& parts,
                                          int64_t rows, const HeadShape& shape) {
  const at::Tensor weight =
      at::cat({dense_weight(block.key, at::kBFloat16), dense_weight(block.value, at::kBFloat16)}, 0);
  const at::Tensor both = at::empty({rows, weight.size(0)}, weight.options());
  ops::prefer_large_pages(both);
  int64_t first = 0;
  for (const at::Tensor& states : parts) {
    ops::tuned_product_into(both.narrow(0, first, states.size(0)), states.to(at::kBFloat16), weight);
    first += states.size(0);
  }
  return halves_of(both, shape);
}

void keep_in_8_bits(ContextStates& context, std::span<const CrossAttention* const> blocks, const HeadShape& shape) {
  const std::vector<at::Tensor> states = packed_pages(context.pages);
  for (const CrossAttention* block : blocks) {
    if (!block) continue;
    context.kept.push_back(
        {{},
         {},
         std::make_shared<const ops::Int8Context>(ops::project_int8(
             states, dense_weight(block->key, at::kFloat), dense_weight(block->value, at::kFloat), shape.groups))});
  }
}

bool come_from_int8(const ContextStates& context, std::span<const CrossAttention* const> blocks, at::ScalarType type) {
  return ops::prefers_int8_product() && context.rows > 0 && context.pages.front().is_cpu() &&
         ops::is_int8_rows(context.pages.front()) && type == at::kBFloat16 &&
         std::all_of(blocks.begin(), blocks.end(), [](const auto* block) { return !block || takes_int8(*block); });
}

void project_all(ContextStates& context, std::span<const CrossAttention* const> blocks, const HeadShape& shape,
                 at::ScalarType type) {
  if (type == at::kByte) return keep_in_8_bits(context, blocks, shape);
  const bool as_they_are = come_from_int8(context, blocks, type);
  const std::vector<at::Tensor> parts = as_they_are ? std::vector<at::Tensor>() : tiles(context, tile_rows(1));
  const bool together = !parts.empty() && parts.front().is_cpu() && type == at::kBFloat16 && ops::multiplies_bfloat16();
  for (const CrossAttention* block : blocks) {
    if (!block) continue;
    if (as_they_are) {
      context.kept.push_back(halves_of(project_packed(*block, context.pages), shape));
      continue;
    }
    if (together) {
      context.kept.push_back(project_together(*block, parts, context.rows, shape));
      continue;
    }
    std::vector<at::Tensor> keys, values;
    for (const at::Tensor& states : parts) {
      ContextStates::Projected kv = project(*block, states, shape);
      keys.push_back(kv.keys.to(type));
      values.push_back(kv.values.to(type));
    }
    context.kept.push_back({at::cat(keys, 0), at::cat(values, 0)});
  }
}

}  // namespace

void keep_projections(ContextStates& context, std::span<const CrossAttention* const> blocks, const HeadShape& shape,
                      at::ScalarType type) {
  context.kept.clear();
  try {
    project_all(context, blocks, shape, type);
  } catch (...) {
    context.kept.clear();  // all layers or none
    throw;
  }
}

namespace {

// All windows of SharedContext: queries [W * B * T, H, D] -> the same shape; zeros for windows that see nothing.
at::Tensor attend_shared(const CrossAttention& block, const at::Tensor& queries, const SharedContext& shared,
                         const HeadShape& shape) {
  const int64_t texts = shared.states.size(0), windows = static_cast<int64_t>(shared.slices.size());
  const ContextStates::Projected kv = project(block, shared.states, shape);
  const auto by_text = [&](const at::Tensor& x) { return x.reshape({texts, -1, shape.groups, shape.width}); };
  return attend_windows(queries.reshape({windows, texts, -1, shape.heads, shape.width}), by_text(kv.keys),
                        by_text(kv.values), shared.slices, scale_of(shape))
      .reshape({-1, shape.heads, shape.width});
}

}  // namespace

namespace {

// Kept keys and values of the contexts for query rows [B * R, G, W] of a step -> the same shape.
at::Tensor attend_contexts(const at::Tensor& rows, const StepTables& step, const HeadShape& shape, int64_t layer) {
  const ops::BatchAttention found =
      ops::paged_attention({rows, step.context_queries, step.most_context_rows},
                           step.context.at(static_cast<size_t>(layer)), scale_of(shape), rows.scalar_type());
  if (!step.masses.pages.empty()) add_step_masses(step.masses, rows, found.log_sum_exp, scale_of(shape), layer);
  return found.output;
}

// A token of each of B sequences over tables on the device: queries [B, H, D] -> [B, H, D].
at::Tensor attend_step(const CrossAttention& block, const at::Tensor& queries, const StepTables& step,
                       const HeadShape& shape, int64_t layer) {
  if (!step.absorbed) {
    const at::Tensor rows = ops::rows_of_groups(queries, shape.groups);
    return ops::heads_of_groups(attend_contexts(rows, step, shape, layer), queries.size(0));
  }
  const at::ScalarType type = queries.scalar_type();
  const int64_t encoder_width = step.context.front().width;
  const at::Tensor wide = ops::transposed_head_product(queries, dense_weight(block.key, type), shape.groups);
  const at::Tensor rows = wide.reshape({-1, 1, encoder_width});
  ops::BatchQueries asked{rows, step.context_queries, step.most_context_rows};
  asked.backwards = layer % 2 == 1;  // every layer reads the same states
  const ops::HeadAttention found = ops::attention_into_heads(
      asked, step.context.front(), scale_of(shape), dense_weight(block.value, type), shape.heads, shape.groups);
  if (!step.masses.pages.empty()) add_step_masses(step.masses, rows, found.log_sum_exp, scale_of(shape), layer);
  return found.output;
}

}  // namespace

at::Tensor forward(const CrossAttention& block, const at::Tensor& normed, const BatchLayout& layout,
                   const CrossAttentionInput& input, const HeadShape& shape, int64_t layer) {
  const at::Tensor queries = forward(block.query, normed).reshape({-1, shape.heads, shape.width});  // [N, H, D]
  if (input.shared) {
    const at::Tensor attended = attend_shared(block, queries, *input.shared, shape);
    return forward(block.output, attended.reshape({normed.size(0), shape.heads * shape.width}));
  }
  if (layout.step) {
    const at::Tensor attended = attend_step(block, queries, *layout.step, shape, layer);
    return forward(block.output, attended.reshape({normed.size(0), shape.heads * shape.width}));
  }
  std::vector<at::Tensor> outputs;
  for (size_t i = 0; i < layout.sequences.size();) {
    const ContextStates* context = input.contexts.at(i);
    const int64_t first = layout.sequences[i].first;
    int64_t count = 0;  // rows of neighbours with one context: they read its pages together
    for (; i < layout.sequences.size() && input.contexts.at(i) == context; ++i) {
      const SequenceRows& sequence = layout.sequences[i];
      count += sequence.count;
      if (context && context->rows > 0 && i < input.masses.size() && input.masses[i])
        add_page_masses(block, queries.narrow(0, sequence.first + sequence.count - 1, 1), *context, shape, layer,
                        *input.masses[i]);
    }
    const at::Tensor rows = queries.narrow(0, first, count);
    outputs.push_back(context && context->rows > 0 ? attend(block, rows, *context, input.path, shape, layer)
                                                   : at::zeros_like(rows));
  }
  // Without a bias the product of nothing is exactly nothing.
  const at::Tensor attended = outputs.size() == 1 ? outputs.front() : at::cat(outputs, 0);
  return forward(block.output, attended.reshape({normed.size(0), shape.heads * shape.width}));
}

void visit(CrossAttention& block, const std::string& prefix,
           const std::function<void(const std::string&, at::Tensor&)>& visitor) {
  visitor(prefix + "q_proj.weight", block.query.weight);
  visitor(prefix + "k_proj.weight", block.key.weight);
  visitor(prefix + "v_proj.weight", block.value.weight);
  visitor(prefix + "o_proj.weight", block.output.weight);
  visitor(prefix + "layernorm.weight", block.norm.weight);
}

}  // namespace cepe::model
