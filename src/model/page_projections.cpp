#include "model/page_projections.h"

#include <ATen/ops/empty.h>

#include "model/packed_context.h"
#include "ops/large_pages.h"

namespace cepe::model {

ops::Int8PageForm page_projection_form(const CepeModel& model, int64_t rows) {
  const HeadShape shape = head_shape(model.decoder.config);
  ops::Int8PageForm form = ops::int8_page_form(rows, shape.groups, shape.width, shape.width);
  form.blocks *= cross_attention_layers(model);
  return form;
}

int64_t page_projection_bytes(const CepeModel& model, std::span<const int64_t> page_rows) {
  int64_t bytes = 0;
  for (const int64_t rows : page_rows) {
    const ops::Int8PageForm form = page_projection_form(model, rows);
    bytes += form.blocks * form.block_bytes;
  }
  return bytes;
}

std::vector<at::Tensor> empty_page_projections(const CepeModel& model, std::span<const int64_t> page_rows) {
  int64_t blocks = 0;
  for (const int64_t rows : page_rows) blocks += page_projection_form(model, rows).blocks;
  const at::Tensor whole = at::empty({blocks, page_projection_form(model, 1).block_bytes}, at::kByte);
  ops::prefer_large_pages(whole);
  std::vector<at::Tensor> pages;
  int64_t first = 0;
  for (const int64_t rows : page_rows) {
    pages.push_back(whole.narrow(0, first, page_projection_form(model, rows).blocks));
    first += pages.back().size(0);
  }
  return pages;
}

void keep_projections_in(std::span<const at::Tensor> memory, const std::vector<bool>& made, const CepeModel& model,
                         ContextStates& context) {
  std::vector<at::Tensor> missing, missing_memory;  // pages
  std::vector<int64_t> rows, missing_rows;
  for (size_t page = 0; page < made.size(); ++page) {
    rows.push_back(context.pages[page].size(0));
    if (made[page]) continue;
    missing.push_back(context.pages[page]);
    missing_memory.push_back(memory[page]);
    missing_rows.push_back(rows.back());
  }
  missing = packed_pages(missing);
  const HeadShape shape = head_shape(model.decoder.config);
  const auto of_layer = [&](std::span<const at::Tensor> pages, int64_t layer, std::span<const int64_t> page_rows) {
    return ops::int8_context_of(pages, layer, page_rows, shape.groups, shape.width, shape.width);
  };
  std::vector<ContextStates::Projected> kept;
  for (const CrossAttention* block : cross_attention_blocks(model)) {
    if (!block) continue;
    const auto layer = static_cast<int64_t>(kept.size());
    if (!missing.empty()) {
      ops::project_int8_into(of_layer(missing_memory, layer, missing_rows), missing,
                             dense_weight(block->key, at::kFloat), dense_weight(block->value, at::kFloat));
    }
    kept.push_back({{}, {}, std::make_shared<const ops::Int8Context>(of_layer(memory, layer, rows))});
  }
  context.kept = std::move(kept);
}

}  // namespace cepe::model
