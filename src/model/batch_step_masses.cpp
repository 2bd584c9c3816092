// The tables of attribution (page_masses.h): made once a size, filled where they change.
#include <ATen/ops/zeros.h>

#include "model/batch_step_tables.h"

namespace cepe::model {

// Each page of the rows that ask, of states or of the K that are kept of them.
void BatchStep::fill_masses(Recording& recording, std::span<const Row> rows) {
  const Plan& plan = recording.plan;
  const auto pages = static_cast<size_t>(plan.mass_pages);
  std::vector<int32_t> page_rows;
  std::vector<int64_t> numbers;  // of the rows, then by layer addresses of keys
  const auto layers = static_cast<size_t>(plan.kept ? recording.any_context->kept.size() : 1);
  for (size_t i = 0; i < rows.size(); ++i) {
    if (!rows[i].asks_masses || !has_rows(rows[i].context)) continue;
    for (const at::Tensor& page : rows[i].context->pages) {
      page_rows.push_back(static_cast<int32_t>(page.size(0)));
      numbers.push_back(static_cast<int64_t>(i));
    }
  }
  page_rows.resize(pages, 0);
  numbers.resize(pages, 0);
  const auto add = [&](const auto& address_of_page) {  // (context, number of the page, its first row)
    const size_t end = numbers.size() + pages;
    for (const Row& row : rows) {
      if (!row.asks_masses || !has_rows(row.context)) continue;
      int64_t first = 0;
      for (const at::Tensor& page : row.context->pages) {
        numbers.push_back(address_of_page(*row.context, page, first));
        first += page.size(0);
      }
    }
    numbers.resize(end, 0);
  };
  if (plan.kept) {
    for (size_t layer = 0; layer < layers; ++layer) {
      add([&](const ContextStates& context, const at::Tensor&, int64_t first) {
        const at::Tensor& keys = context.kept.at(layer).keys;
        return ops::address_of(keys) + first * keys.stride(0) * static_cast<int64_t>(keys.itemsize());
      });
    }
  } else {
    add([](const ContextStates&, const at::Tensor& page, int64_t) { return ops::address_of(page); });
  }

  StepMasses& masses = recording.tables->masses;
  if (masses.pages.empty()) {
    const at::TensorOptions longs = at::TensorOptions(model_.decoder.device()).dtype(at::kLong);
    recording.mass_rows = at::zeros({plan.mass_pages}, longs.dtype(at::kInt));
    recording.mass_numbers = at::zeros({static_cast<int64_t>(numbers.size())}, longs);
    masses.of = recording.mass_numbers.narrow(0, 0, plan.mass_pages);
    masses.sum = at::zeros({plan.mass_pages}, longs.dtype(at::kFloat));
    masses.sequences = plan.batch;
    masses.part_of_layer = 1.0 / static_cast<double>(cross_attention_layers(model_));
    for (size_t layer = 0; layer < layers; ++layer) {
      ops::PageTable table = recording.tables->context.at(layer);  // of the same form
      table.page_rows = plan.mass_page_rows;
      table.rows = recording.mass_rows;
      table.keys = recording.mass_numbers.narrow(0, static_cast<int64_t>(1 + layer) * plan.mass_pages, plan.mass_pages);
      table.values = at::Tensor();  // only what the scores sum to is wanted
      masses.pages.push_back(std::move(table));
    }
  }
  upload(page_rows, recording.mass_rows);
  upload(numbers, recording.mass_numbers);
}

}  // namespace cepe::model
