#include "model/page_projections.h"

#include <ATen/ops/empty.h>

#include "model/packed_context.h"
#include "ops/int8_context.h"
#include "ops/large_pages.h"

namespace cepe::model {
namespace {

ops::Int8PageForm form_of(const CepeModel& model, int64_t rows) {
  const HeadShape shape = head_shape(model.decoder.config);
  return ops::int8_page_form(rows, shape.groups, shape.width, shape.width);
}

}  // namespace

PageProjections::PageProjections(const CepeModel& model, std::span<const int64_t> page_rows) {
  first_block_.reserve(page_rows.size() + 1);
  for (const int64_t rows : page_rows) first_block_.push_back(first_block_.back() + form_of(model, rows).blocks);
  for (int64_t layer = 0; layer < cross_attention_layers(model); ++layer) {
    layers.push_back(at::empty({first_block_.back(), form_of(model, 1).block_bytes}, at::kByte));
    ops::prefer_large_pages(layers.back());
  }
}

std::vector<at::Tensor> PageProjections::parts_of(size_t page) const {
  std::vector<at::Tensor> parts;
  parts.reserve(layers.size());
  for (const at::Tensor& layer : layers) parts.push_back(layer.narrow(0, first_block_[page], blocks_of(page)));
  return parts;
}

int64_t page_projection_bytes(const CepeModel& model, std::span<const int64_t> page_rows) {
  const HeadShape shape = head_shape(model.decoder.config);
  return cross_attention_layers(model) * ops::int8_context_bytes(page_rows, shape.groups, shape.width, shape.width);
}

void keep_projections_in(const PageProjections& places, const std::vector<bool>& made, const CepeModel& model,
                         ContextStates& context) {
  std::vector<at::Tensor> pages;                                       // that are missing
  std::vector<std::vector<at::Tensor>> missing(places.layers.size());  // their places, by layer
  std::vector<int64_t> rows;
  for (size_t page = 0; page < made.size(); ++page) {
    rows.push_back(context.pages[page].size(0));
    if (made[page]) continue;
    pages.push_back(context.pages[page]);
    const std::vector<at::Tensor> parts = places.parts_of(page);
    for (size_t layer = 0; layer < parts.size(); ++layer) missing[layer].push_back(parts[layer]);
  }
  pages = packed_pages(pages);
  const HeadShape shape = head_shape(model.decoder.config);
  std::vector<ContextStates::Projected> kept;
  for (const CrossAttention* block : cross_attention_blocks(model)) {
    if (!block) continue;
    const size_t layer = kept.size();
    if (!pages.empty()) {
      ops::project_int8_into(missing[layer], pages, dense_weight(block->key, at::kFloat),
                             dense_weight(block->value, at::kFloat), shape.groups);
    }
    kept.push_back({{},
                    {},
                    std::make_shared<const ops::Int8Context>(
                        ops::int8_context_of(places.layers[layer], rows, shape.groups, shape.width, shape.width))});
  }
  context.kept = std::move(kept);
}

}  // namespace cepe::model
