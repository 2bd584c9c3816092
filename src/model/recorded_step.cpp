#include "model/recorded_step.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "base/error.h"

namespace cepe::model {
namespace {

constexpr int64_t page_rows = 256;

// Rows [M, G, D] that lie one after the other, as pages of 256.
std::vector<ops::RowPage> pages_of(const at::Tensor& keys, const at::Tensor& values) {
  std::vector<ops::RowPage> pages;
  for (int64_t first = 0; first < keys.size(0); first += page_rows) {
    const int64_t rows = std::min(page_rows, keys.size(0) - first);
    pages.push_back({keys.narrow(0, first, rows), values.narrow(0, first, rows)});
  }
  return pages;
}

ops::PageTable table_of(std::vector<ops::RowPage> pages, at::Device device) {
  const std::vector<std::vector<ops::RowPage>> one = {std::move(pages)};
  return ops::page_table(one, device);
}

std::vector<ops::PageTable> context_tables(const ContextStates& context, at::Device device) {
  std::vector<ops::PageTable> tables;
  for (const ContextStates::Projected& kept : context.kept)
    tables.push_back(table_of(pages_of(kept.keys, kept.values), device));
  if (tables.empty()) tables.push_back(context.table());
  return tables;
}

at::Tensor row_bounds(int64_t rows, at::Device device) { return at::tensor({int64_t{0}, rows}, at::kInt).to(device); }

}  // namespace

bool RecordedStep::takes(const CepeModel& model, const KvCache& cache, const ContextStates* context) {
  const DecoderConfig& config = model.decoder.config;
  const at::Device device = model.decoder.device();
  const bool windowed = std::any_of(config.windows.begin(), config.windows.end(),
                                    [&](int64_t window) { return window > 0 && window < cache.slots(); });
  if (!device.is_cuda() || windowed || cache.keys.front().scalar_type() != at::kBFloat16) return false;
  const auto taken = [&](const ops::RowPage& page) {
    return ops::takes_paged_attention(table_of({page}, device), device);
  };
  if (!taken({cache.keys.front().narrow(0, 0, 1), cache.values.front().narrow(0, 0, 1)})) return false;
  if (!context || context->rows == 0) return true;
  if (!context->kept.empty()) {
    const ContextStates::Projected& kept = context->kept.front();
    return taken({kept.keys.narrow(0, 0, 1), kept.values.narrow(0, 0, 1)});
  }
  return ops::takes_paged_attention(context->table(), device);
}

RecordedStep::RecordedStep(const CepeModel& model, KvCache& cache, const ContextStates* context)
    : model_(model), cache_(cache), context_(context && context->rows > 0 ? context : nullptr) {
  const DecoderConfig& config = model.decoder.config;
  const at::Device device = model.decoder.device();
  const auto integers = at::TensorOptions(device).dtype(at::kLong);
  token_ = at::zeros({1}, integers);
  position_ = at::zeros({1}, integers);
  tables_ = std::make_shared<StepTables>();
  tables_->slots = position_;  // row p of the only sequence lies in slot p
  for (size_t layer = 0; layer < cache.keys.size(); ++layer)
    tables_->cache.push_back(table_of(pages_of(cache.keys[layer], cache.values[layer]), device));
  // All layers share one count of rows a page, which follows the position.
  const int64_t pages = tables_->cache.front().rows.size(0);
  page_starts_ = at::arange(0, pages * page_rows, page_rows, integers);
  for (ops::PageTable& table : tables_->cache) table.rows = tables_->cache.front().rows;
  tables_->cache_queries = row_bounds(config.heads / config.groups, device);
  if (context_) {
    tables_->context = context_tables(*context_, device);
    tables_->absorbed = context_->kept.empty();
    tables_->context_queries = row_bounds(tables_->absorbed ? config.heads : config.heads / config.groups, device);
  }
  logits_ = at::empty({1, (model.decoder.lm_head ? model.decoder.lm_head : model.decoder.embedding).out_features()},
                      at::TensorOptions(device).dtype(at::kFloat));
}

RecordedStep::~RecordedStep() = default;

void RecordedStep::run() {
  at::Tensor rows = tables_->cache.front().rows;
  rows.copy_(at::clamp(position_ + 1 - page_starts_, 0, page_rows));
  BatchLayout layout;
  layout.tokens = token_;
  layout.positions = position_;
  layout.sequences = {{0, 1, 0, 0}};
  layout.step = tables_;
  CrossAttentionInput cross;
  if (context_) cross = {cross_attention_blocks(model_), {context_}, CrossAttentionPath::automatic};
  logits_.copy_(model::logits(model_.decoder, forward(model_.decoder, layout, &cache_, cross)));
}

const at::Tensor& RecordedStep::logits(const at::Tensor& token, int64_t position) {
  const at::NoGradGuard none;
  if (position < 0 || position >= cache_.slots()) {
    throw base::Error(base::ErrorCode::invalid_argument, "position " + std::to_string(position) + " of a cache of " +
                                                             std::to_string(cache_.slots()) + " rows");
  }
  token_.copy_(token);
  position_.fill_(position);
  if (!graph_) graph_ = ops::DeviceGraph::record(model_.decoder.device(), [this] { run(); });
  if (graph_)
    graph_->replay();
  else
    run();
  return logits_;
}

}  // namespace cepe::model
