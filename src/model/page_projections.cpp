#include "model/page_projections.h"

#include "model/packed_context.h"
#include "ops/int8_context.h"

namespace cepe::model {
namespace {

// Of one layer: its part of each place.
std::vector<at::Tensor> parts_of(const std::vector<at::Tensor>& places, int64_t layer, int64_t layers) {
  std::vector<at::Tensor> parts;
  parts.reserve(places.size());
  for (const at::Tensor& place : places) {
    const int64_t blocks = place.size(0) / layers;
    parts.push_back(place.narrow(0, layer * blocks, blocks));
  }
  return parts;
}

}  // namespace

PageProjectionForm page_projection_form(const CepeModel& model, int64_t rows) {
  const HeadShape shape = head_shape(model.decoder.config);
  const ops::Int8PageForm form = ops::int8_page_form(rows, shape.groups, shape.width, shape.width);
  return {cross_attention_layers(model) * form.blocks, form.block_bytes};
}

void keep_projections_in(const std::vector<at::Tensor>& places, const std::vector<bool>& made, const CepeModel& model,
                         ContextStates& context) {
  std::vector<at::Tensor> pages, missing;
  std::vector<int64_t> rows;
  for (size_t i = 0; i < places.size(); ++i) {
    rows.push_back(context.pages[i].size(0));
    if (made[i]) continue;
    pages.push_back(context.pages[i]);
    missing.push_back(places[i]);
  }
  pages = packed_pages(pages);
  const HeadShape shape = head_shape(model.decoder.config);
  const int64_t layers = cross_attention_layers(model);
  std::vector<ContextStates::Projected> kept;
  for (const CrossAttention* block : cross_attention_blocks(model)) {
    if (!block) continue;
    const auto layer = static_cast<int64_t>(kept.size());
    if (!pages.empty()) {
      ops::project_int8_into(parts_of(missing, layer, layers), pages, dense_weight(block->key, at::kFloat),
                             dense_weight(block->value, at::kFloat), shape.groups);
    }
    kept.push_back({{},
                    {},
                    std::make_shared<const ops::Int8Context>(ops::int8_context_of(
                        parts_of(places, layer, layers), rows, shape.groups, shape.width, shape.width))});
  }
  context.kept = std::move(kept);
}

}  // namespace cepe::model
