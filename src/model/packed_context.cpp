#include "model/packed_context.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <array>
#include <utility>

#include "ops/int8_context.h"
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

std::vector<at::Tensor> packed_pages(std::span<const at::Tensor> pages) {
  std::vector<at::Tensor> packed(pages.size());
  at::parallel_for(0, static_cast<int64_t>(pages.size()), 1, [&](int64_t begin, int64_t end) {
    const at::NoGradGuard none;
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i)
      packed[i] = ops::is_int8_rows(pages[i]) ? pages[i] : ops::int8_rows(pages[i]);
  });
  return packed;
}

ContextStates dense_pages(ContextStates context) {
  ContextStates dense;
  for (const at::Tensor& page : context.pages) dense.append(ops::unpacked_rows(page));
  dense.kept = std::move(context.kept);
  return dense;
}

bool prefers_packed_pages(const Adapter& adapter) {
  const at::Device device = adapter.encoder.norm.weight.device();
  const int64_t width = adapter.encoder.config.width;
  if (!device.is_cpu()) return ops::takes_int8_pages(width, device);
  const auto& blocks = adapter.cross_attention;
  return ops::takes_int8_context(width) &&
         std::any_of(blocks.begin(), blocks.end(), [](const auto& block) { return block.has_value(); });
}

}  // namespace cepe::model
