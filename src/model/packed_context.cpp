#include "model/packed_context.h"

#include <algorithm>
#include <array>
#include <utility>

#include "ops/int8_product.h"
#include "ops/int8_rows.h"
#include "ops/paged_attention.h"

namespace cepe::model {

bool takes_int8(const CrossAttention& block) {
  const auto takes = [](const Linear& weight) {
    return weight.packed && ops::takes_int8_product(*weight.packed) && !weight.bias.defined() &&
           weight.low_rank.empty();
  };
  return takes(block.key) && takes(block.value);
}

at::Tensor project_packed(const CrossAttention& block, std::span<const at::Tensor> pages) {
  const std::array<ops::WeightReference, 2> weights = {*block.key.packed, *block.value.packed};
  return ops::int8_product(pages, weights);
}

ContextStates dense_pages(ContextStates context) {
  ContextStates dense;
  for (const at::Tensor& page : context.pages) dense.append(ops::unpacked_rows(page));
  dense.kept = std::move(context.kept);
  return dense;
}

bool prefers_packed_pages(const Adapter& adapter) {
  const at::Device device = adapter.encoder.norm.weight.device();
  if (!device.is_cpu()) return ops::takes_int8_pages(adapter.encoder.config.width, device);
  const auto& blocks = adapter.cross_attention;
  const auto absent = [](const auto& block) { return !block; };
  return ops::prefers_int8_product() && !std::all_of(blocks.begin(), blocks.end(), absent) &&
         std::all_of(blocks.begin(), blocks.end(), [](const auto& block) { return !block || takes_int8(*block); });
}

}  // namespace cepe::model
