// The tables of attribution (page_masses.h): made once a size, filled where they change.
#include <ATen/ops/zeros.h>

#include <span>
#include <vector>

#include "model/batch_step_tables.h"

namespace cepe::model {
namespace {

// A page whose mass is wanted: of which row, and where it begins in its context.
struct AskedPage {
  int64_t row, first;
  const ContextStates* context;
  const at::Tensor* states;
};

std::vector<AskedPage> asked_pages(std::span<const BatchStep::Row> rows) {
  std::vector<AskedPage> asked;
  for (size_t row = 0; row < rows.size(); ++row) {
    if (!rows[row].asks_masses || !has_rows(rows[row].context)) continue;
    int64_t first = 0;
    for (const at::Tensor& page : rows[row].context->pages) {
      asked.push_back({static_cast<int64_t>(row), first, rows[row].context, &page});
      first += page.size(0);
    }
  }
  return asked;
}

// Of its first row, in the states or in a layer's K.
int64_t address_of(const AskedPage& page, bool kept, size_t layer) {
  if (!kept) return ops::address_of(*page.states);
  const at::Tensor& keys = page.context->kept.at(layer).keys;
  return ops::address_of(keys) + page.first * keys.stride(0) * static_cast<int64_t>(keys.itemsize());
}

}  // namespace

// Each page of the rows that ask, of states or of the K that are kept of them.
void BatchStep::fill_masses(Recording& recording, std::span<const Row> rows) {
  const Plan& plan = recording.plan;
  const auto pages = static_cast<size_t>(plan.mass_pages);
  const auto layers = static_cast<size_t>(plan.kept ? recording.any_context->kept.size() : 1);
  const std::vector<AskedPage> asked = asked_pages(rows);
  std::vector<int32_t> page_rows;
  std::vector<int64_t> numbers;  // of the rows, then by layer addresses of keys
  for (const AskedPage& page : asked) {
    page_rows.push_back(static_cast<int32_t>(page.states->size(0)));
    numbers.push_back(page.row);
  }
  page_rows.resize(pages, 0);
  numbers.resize(pages, 0);
  for (size_t layer = 0; layer < layers; ++layer) {
    for (const AskedPage& page : asked) numbers.push_back(address_of(page, plan.kept, layer));
    numbers.resize((2 + layer) * pages, 0);
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
