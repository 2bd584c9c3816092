// The tables of a step: made once a size, filled before each step.
#include "model/batch_step_tables.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstring>

namespace cepe::model {
namespace {

constexpr size_t most_recordings = 24;  // each has the memory of a step of its own

}  // namespace

int64_t pages_of(const ContextStates& context, bool kept) {
  return kept ? (context.rows + kept_page_rows - 1) / kept_page_rows : static_cast<int64_t>(context.pages.size());
}

ops::PageTable form_of(const at::Tensor& rows, int64_t page_rows) {  // rows [slots, G, D]
  ops::PageTable table = ops::page_form(rows, rows);
  table.page_rows = page_rows;
  return table;
}

BatchStep::Recording& BatchStep::recording_for(const Plan& plan) {
  const auto known = std::find_if(recordings_.begin(), recordings_.end(),
                                  [&](const auto& recording) { return recording->plan == plan; });
  if (known != recordings_.end()) {
    std::rotate(known, known + 1, recordings_.end());  // the one that was asked last stands last
    return *recordings_.back();
  }
  if (recordings_.size() >= most_recordings) recordings_.erase(recordings_.begin());

  const DecoderConfig& config = model_.decoder.config;
  const at::Device device = model_.decoder.device();
  const auto longs = at::TensorOptions(device).dtype(at::kLong);
  auto made = std::make_unique<Recording>();
  made->plan = plan;
  const int64_t batch = plan.batch, layers = config.layers, each = config.heads / config.groups;
  const int64_t bounds = plan.sequences + 1;
  const int64_t numbers = 3 * batch + plan.pages + plan.asked, counts = 2 * bounds + plan.pages;
  made->uploaded = at::zeros({numbers + (counts + 1) / 2}, longs);
  made->numbers = made->uploaded.narrow(0, 0, numbers);
  made->counts = made->uploaded.narrow(0, numbers, (counts + 1) / 2).view(at::kInt).narrow(0, 0, counts);
  made->addresses = at::zeros({2, layers, plan.pages}, longs);
  StepTables& tables = *made->tables;
  tables.frequencies = frequencies_;
  tables.local_frequencies = local_frequencies_;
  tables.cache_queries = made->counts.narrow(0, bounds, bounds);
  tables.most_cache_rows = plan.longest * each;
  tables.rows_of_token = plan.longest > 1 ? each : 0;
  tables.one_row_each = !plan.texts;
  for (int64_t layer = 0; layer < layers; ++layer) {
    const at::Tensor& kept = cache_.keys[static_cast<size_t>(layer)];
    ops::PageTable table = ops::cache_form(kept, kept);
    table.page_rows = block_rows_;
    table.first_page = made->counts.narrow(0, 0, bounds);
    table.rows = made->counts.narrow(0, 2 * bounds, plan.pages);
    table.keys = made->addresses[0][layer];
    table.values = made->addresses[1][layer];
    tables.cache.push_back(std::move(table));
  }
  recordings_.push_back(std::move(made));
  return *recordings_.back();
}

// The tables of the contexts, where they are others than those of the last step.
void BatchStep::fill_contexts(Recording& recording, std::span<const Row> rows) {
  const Plan& plan = recording.plan;
  const DecoderConfig& config = model_.decoder.config;
  decltype(recording.contexts) contexts;
  for (const Row& row : rows) {
    contexts.emplace_back(has_rows(row.context) ? row.context->table() : nullptr, row.asks_masses);
    if (has_rows(row.context)) recording.any_context = row.context;
  }
  if (contexts == recording.contexts) return;
  recording.contexts.clear();  // an error leaves nothing that looks right

  const int64_t each = plan.kept ? config.heads / config.groups : config.heads, batch = plan.batch;
  std::vector<int32_t> first_page = {0}, first_query = {0}, page_rows;
  std::vector<const ContextStates*> groups;
  for (size_t i = 0; i < rows.size();) {
    const ContextStates* context = rows[i].context;
    while (i < rows.size() && rows[i].context == context) ++i;
    if (has_rows(context)) {
      groups.push_back(context);
      for (int64_t page = 0; page < pages_of(*context, plan.kept); ++page)
        page_rows.push_back(static_cast<int32_t>(plan.kept
                                                     ? std::min(kept_page_rows, context->rows - page * kept_page_rows)
                                                     : context->pages[static_cast<size_t>(page)].size(0)));
    }
    first_page.push_back(static_cast<int32_t>(page_rows.size()));
    first_query.push_back(static_cast<int32_t>(static_cast<int64_t>(i) * each));
  }
  first_page.resize(static_cast<size_t>(batch + 1), first_page.back());
  first_query.resize(static_cast<size_t>(batch + 1), first_query.back());

  std::vector<int64_t> addresses;
  const size_t layers = plan.kept ? groups.front()->kept.size() : 1;
  const auto add = [&](const at::Tensor ContextStates::Projected::*part, size_t layer) {
    const size_t begin = addresses.size();
    for (const ContextStates* context : groups) {
      const at::Tensor& kept = context->kept.at(layer).*part;
      const int64_t page_bytes = kept_page_rows * kept.size(1) * kept.size(2) * static_cast<int64_t>(kept.itemsize());
      for (int64_t page = 0; page < pages_of(*context, true); ++page)
        addresses.push_back(ops::address_of(kept) + page * page_bytes);
    }
    addresses.resize(begin + static_cast<size_t>(plan.context_pages), 0);
  };
  if (plan.kept) {
    for (size_t layer = 0; layer < layers; ++layer) add(&ContextStates::Projected::keys, layer);
    for (size_t layer = 0; layer < layers; ++layer) add(&ContextStates::Projected::values, layer);
  } else {
    for (const ContextStates* context : groups)
      for (const at::Tensor& page : context->pages) addresses.push_back(ops::address_of(page));
    addresses.resize(static_cast<size_t>(plan.context_pages), 0);
  }

  StepTables& tables = *recording.tables;
  if (!recording.context_counts.defined()) {
    const at::Device device = model_.decoder.device();
    const auto longs = at::TensorOptions(device).dtype(at::kLong);
    const at::Tensor& counts = recording.context_counts =
        at::zeros({2 * (batch + 1) + plan.context_pages}, longs.dtype(at::kInt));
    recording.context_addresses = at::zeros({static_cast<int64_t>(addresses.size())}, longs);
    tables.absorbed = !plan.kept;
    const int64_t bounds = plan.joined ? 2 : batch + 1;
    tables.context_queries = counts.narrow(0, batch + 1, bounds);
    tables.most_context_rows = plan.neighbours * each;
    const ContextStates& one = *groups.front();
    for (size_t layer = 0; layer < layers; ++layer) {
      ops::PageTable table =
          form_of(plan.kept ? one.kept[layer].keys : one.pages.front().unsqueeze(1), plan.context_page_rows);
      table.first_page = counts.narrow(0, 0, bounds);
      table.rows = counts.narrow(0, 2 * (batch + 1), plan.context_pages);
      const auto of = [&](size_t number) {
        return recording.context_addresses.narrow(0, static_cast<int64_t>(number) * plan.context_pages,
                                                  plan.context_pages);
      };
      table.keys = of(layer);
      if (plan.kept) table.values = of(layers + layer);
      tables.context.push_back(std::move(table));
    }
  }
  std::vector<int32_t> counts = std::move(first_page);
  counts.insert(counts.end(), first_query.begin(), first_query.end());
  counts.insert(counts.end(), page_rows.begin(), page_rows.end());
  upload(counts, recording.context_counts);
  upload(addresses, recording.context_addresses);
  if (plan.mass_pages > 0) fill_masses(recording, rows);
  recording.contexts = std::move(contexts);
}

void BatchStep::fill(Recording& recording, const at::Tensor& tokens, std::span<const Row> rows) {
  const auto batch = static_cast<size_t>(recording.plan.batch);
  const at::Tensor& keys = cache_.keys.front();
  const int64_t block_bytes = block_rows_ * keys.stride(0) * static_cast<int64_t>(keys.itemsize());
  const at::Tensor given = tokens.to(at::kCPU, at::kLong).contiguous();
  std::vector<int64_t> numbers(3 * batch, 0);
  const int64_t each = model_.decoder.config.heads / model_.decoder.config.groups;
  std::vector<int32_t> first_page = {0}, first_query = {0}, page_rows;
  std::fill(numbers.begin() + static_cast<std::ptrdiff_t>(2 * batch), numbers.end(), padding_slot_);
  for (size_t i = 0; i < rows.size(); ++i) {
    const int64_t position = rows[i].position;
    numbers[i] = given.const_data_ptr<int64_t>()[i];
    numbers[batch + i] = position;
    numbers[2 * batch + i] =
        rows[i].blocks[static_cast<size_t>(position / block_rows_)] * block_rows_ + position % block_rows_;
    if (!ends_sequence(rows, i)) continue;
    for (int64_t row = 0; row <= position; row += block_rows_) {
      numbers.push_back(rows[i].blocks[static_cast<size_t>(row / block_rows_)] * block_bytes);
      page_rows.push_back(static_cast<int32_t>(std::min(block_rows_, position + 1 - row)));
    }
    first_page.push_back(static_cast<int32_t>(page_rows.size()));
    first_query.push_back(static_cast<int32_t>(static_cast<int64_t>(i + 1) * each));
  }
  const auto bounds = static_cast<size_t>(recording.plan.sequences) + 1;
  first_page.resize(bounds, first_page.back());
  first_query.resize(bounds, first_query.back());
  first_page.insert(first_page.end(), first_query.begin(), first_query.end());
  first_page.insert(first_page.end(), page_rows.begin(), page_rows.end());
  if (recording.plan.asked > 0) {
    numbers.resize(3 * batch + static_cast<size_t>(recording.plan.pages), 0);
    for (size_t i = 0; i < rows.size(); ++i)
      if (rows[i].asks_logits) numbers.push_back(static_cast<int64_t>(i));
  }
  // The counts, half as wide, behind the numbers: one upload a step.
  const auto longs = static_cast<size_t>(recording.numbers.size(0));
  numbers.resize(longs + (first_page.size() + 1) / 2, 0);
  std::memcpy(numbers.data() + longs, first_page.data(), first_page.size() * sizeof(int32_t));
  upload(numbers, recording.uploaded);
  if (recording.plan.crossed()) fill_contexts(recording, rows);
}

}  // namespace cepe::model
