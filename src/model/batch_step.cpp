#include "model/batch_step.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "base/error.h"
#include "model/batch_step_tables.h"
#include "model/rope.h"
#include "ops/int8_rows.h"

namespace cepe::model {
namespace {

[[noreturn]] void refuse(const std::string& message) {
  throw base::Error(base::ErrorCode::invalid_argument, "batch step: " + message);
}

// What recording a step takes, in times of what it saves a short text.
constexpr int64_t asks_of_texts = 8;

// Whether several rows are one sequence's.
bool has_text(std::span<const BatchStep::Row> rows) {
  std::vector<const int32_t*> sequences;
  sequences.reserve(rows.size());
  for (const BatchStep::Row& row : rows) sequences.push_back(row.blocks.data());
  std::ranges::sort(sequences);
  return std::ranges::adjacent_find(sequences) != sequences.end();
}

// Of pages like these, whose keys are not their values.
ops::PageTable pair_form(const at::Tensor& keys) {
  ops::PageTable table = ops::cache_form(keys, keys);
  table.page_rows = kept_page_rows;
  table.values = at::empty({0}, at::kLong);
  return table;
}

// 1, 2, 3, 4, 6, 8, 12, 16, 24, ...: the sizes that are recorded, a third more than asked for at most.
int64_t rounded_up(int64_t count) {
  int64_t size = 1;
  while (size < count) size = size % 3 == 0 ? size / 3 * 4 : size < 2 ? 2 : size / 2 * 3;
  return size;
}

}  // namespace

bool BatchStep::takes(const CepeModel& model, const KvCache& cache) {
  const DecoderConfig& config = model.decoder.config;
  const bool windowed = std::any_of(config.windows.begin(), config.windows.end(),
                                    [&](int64_t window) { return window > 0 && window < cache.slots(); });
  const auto dynamic = [](const RopeConfig& rope) { return rope.scaling == RopeScaling::dynamic; };
  if (windowed || dynamic(config.rope) || (config.local_rope && dynamic(*config.local_rope))) return false;
  return ops::takes_paged_attention(pair_form(cache.keys.front()), model.decoder.device(),
                                    config.heads / config.groups);
}

bool BatchStep::takes(const CepeModel& model, const ContextStates& context) {
  if (context.rows == 0) return true;
  const at::Device device = model.decoder.device();
  const auto dense = [](const at::Tensor& rows) { return rows.is_contiguous(); };
  if (!context.kept.empty()) {
    if (context.kept.front().in_8_bits) return false;
    const ops::PageTable table = pair_form(context.kept.front().keys);
    const bool all_dense = std::all_of(context.kept.begin(), context.kept.end(),
                                       [&](const auto& kept) { return dense(kept.keys) && dense(kept.values); });
    if (!all_dense || !ops::takes_paged_attention(table, device)) return false;
  }
  return std::all_of(context.pages.begin(), context.pages.end(), dense) &&
         ops::takes_paged_attention(*context.table(), device);
}

bool BatchStep::takes_together(const CepeModel& model, const ContextStates& context, int64_t rows,
                               CrossAttentionPath path) {
  if (context.rows == 0) return true;
  const CrossAttentionCost cost = cost_of(context, rows, head_shape(model.decoder.config));
  const CheapestPath way = path == CrossAttentionPath::absorbed ? CheapestPath::absorbed : cheapest(cost);
  if (way == CheapestPath::absorbed && ops::is_int8_rows(context.pages.front()))
    return rows * cost.heads <= most_rows_over_packed;
  return way != CheapestPath::projected;
}

BatchStep::BatchStep(const CepeModel& model, const KvCache& cache, int64_t block_rows, int64_t padding_slot,
                     CrossAttentionPath path)
    : model_(model),
      cache_(cache),
      block_rows_(block_rows),
      padding_slot_(padding_slot),
      path_(path),
      causal_(ops::takes_causal_queries(pair_form(cache.keys.front()), model.decoder.device())) {
  const DecoderConfig& config = model.decoder.config;
  const at::Device device = model.decoder.device();
  std::vector<int64_t> bases;
  for (const auto* tensors : {&cache_.keys, &cache_.values})
    for (const at::Tensor& tensor : *tensors) bases.push_back(ops::address_of(tensor));
  cache_bases_ = at::tensor(bases, at::kLong).to(device).reshape({2, -1, 1});
  if (!config.learned_positions) frequencies_ = inverse_frequencies(config.rope, 0).to(device);
  if (config.local_rope) local_frequencies_ = inverse_frequencies(*config.local_rope, 0).to(device);
}

BatchStep::~BatchStep() = default;

void BatchStep::run(Recording& recording) {
  const int64_t batch = recording.plan.batch;
  at::add_out(recording.addresses, cache_bases_, recording.numbers.narrow(0, 3 * batch, recording.plan.pages));
  BatchLayout layout;
  layout.tokens = recording.numbers.narrow(0, 0, batch);
  layout.positions = recording.numbers.narrow(0, batch, batch);
  layout.slots = recording.numbers.narrow(0, 2 * batch, batch);
  for (int64_t i = 0; i < batch; ++i) layout.sequences.push_back({i, 1, 0, 0});
  layout.step = recording.tables;  // what fills them, and the embedding behind the angles, is not launched in line
  CrossAttentionInput cross;
  if (recording.tables->masses.sum.defined()) recording.tables->masses.sum.zero_();
  if (recording.plan.crossed()) cross = {cross_attention_blocks(model_), {recording.any_context}};
  at::Tensor hidden = forward(model_.decoder, layout, &cache_, cross);
  if (const int64_t asked = recording.plan.asked; asked > 0)
    hidden = hidden.index_select(0, recording.numbers.narrow(0, 3 * batch + recording.plan.pages, asked));
  recording.logits = model::logits(model_.decoder, hidden);
}

bool BatchStep::ends_sequence(std::span<const Row> rows, size_t index) const {
  if (!causal_ || index + 1 == rows.size()) return true;
  const Row &row = rows[index], &next = rows[index + 1];
  return next.blocks.data() != row.blocks.data() || next.position != row.position + 1;
}

// Whether K and V of all contexts are kept, and reading them takes less time than the states.
bool BatchStep::reads_kept(std::span<const Row> rows) const {
  double kept = 0, absorbed = 0;
  bool cpu = false;
  for (size_t i = 0; i < rows.size();) {
    const ContextStates* context = rows[i].context;
    const size_t first = i;
    while (i < rows.size() && rows[i].context == context) ++i;
    if (!has_rows(context)) continue;
    if (context->kept.empty()) return false;
    const auto cost = cost_of(*context, static_cast<int64_t>(i - first), head_shape(model_.decoder.config));
    cpu = cost.cpu;
    kept += static_cast<double>(context->rows) * pass_cost(cost, CheapestPath::kept);
    absorbed += static_cast<double>(context->rows) * pass_cost(cost, CheapestPath::absorbed);
  }
  return path_ == CrossAttentionPath::kept || cpu || kept <= absorbed;
}

at::Tensor BatchStep::logits(const at::Tensor& tokens, std::span<const Row> rows) {
  const at::NoGradGuard none;
  const auto count = static_cast<int64_t>(rows.size());
  if (count == 0 || tokens.dim() != 1 || tokens.size(0) != count) refuse("a token a row must be given");
  Plan plan;
  plan.batch = rounded_up(count);
  plan.kept = reads_kept(rows);
  plan.texts = has_text(rows);
  int64_t pages = 0, context_pages = 0, neighbours = 0, run_length = 0, mass_pages = 0, sequences = 0, length = 0;
  const int64_t asked = std::count_if(rows.begin(), rows.end(), [](const Row& row) { return row.asks_logits; });
  if (asked < count) plan.asked = rounded_up(std::max<int64_t>(asked, 1));
  for (size_t i = 0; i < rows.size(); ++i) {
    const Row& row = rows[i];
    const auto blocks = static_cast<int64_t>(row.blocks.size());
    const bool inside = std::all_of(row.blocks.begin(), row.blocks.end(), [&](int32_t block) {
      return block >= 0 && (block + 1) * block_rows_ <= cache_.slots();
    });
    if (row.position < 0 || row.position / block_rows_ >= blocks || !inside)
      refuse("position " + std::to_string(row.position) + " of " + std::to_string(blocks) +
             " blocks is outside the cache of " + std::to_string(cache_.slots()) + " rows");
    if (model_.decoder.config.learned_positions && row.position >= model_.decoder.config.max_positions)
      refuse("position " + std::to_string(row.position) + " is beyond the model's learned ones");
    plan.longest = std::max(plan.longest, ++length);
    if (!ends_sequence(rows, i)) continue;
    pages += row.position / block_rows_ + 1;
    ++sequences;
    length = 0;
  }
  plan.longest = rounded_up(plan.longest);
  plan.sequences = rounded_up(sequences);
  const Row* before = nullptr;
  for (const Row& row : rows) {
    const bool same = before && before->context == row.context;
    run_length = same ? run_length + 1 : 1;
    before = &row;
    if (!has_rows(row.context)) continue;
    neighbours = std::max(neighbours, run_length);
    if (!same) context_pages += pages_of(*row.context, plan.kept);
    if (row.asks_masses) {
      mass_pages += pages_of(*row.context, false);
      plan.mass_page_rows = std::max(plan.mass_page_rows, rounded_up(row.context->table()->page_rows));
    }
    if (plan.kept) continue;
    const bool packed = ops::is_int8_rows(row.context->pages.front());
    if (context_pages > pages_of(*row.context, false) && packed != plan.packed)
      refuse("contexts in 8 and in 16 bits in one batch");
    plan.packed = packed;
    plan.context_page_rows = std::max(plan.context_page_rows, rounded_up(row.context->table()->page_rows));
  }
  plan.pages = rounded_up(std::max<int64_t>(pages, 16));
  if (context_pages > 0) {
    plan.context_pages = rounded_up(context_pages);
    plan.neighbours = std::min(rounded_up(neighbours), plan.batch);
    plan.joined = neighbours == count;
    if (mass_pages > 0) plan.mass_pages = rounded_up(mass_pages);
  } else {
    plan.kept = false;
  }

  Recording& recording = recording_for(plan);
  fill(recording, tokens, rows);
  recording.asked += plan.texts ? 1 : asks_of_texts;
  if (!recording.graph && recording.asked > asks_of_texts)
    recording.graph = ops::DeviceGraph::record(model_.decoder.device(), [&] { run(recording); });
  if (recording.graph)
    recording.graph->replay();
  else
    run(recording);
  page_masses_ = mass_pages > 0 ? recording.tables->masses.sum.narrow(0, 0, mass_pages) : at::Tensor();
  return recording.logits.narrow(0, 0, asked);
}

}  // namespace cepe::model
