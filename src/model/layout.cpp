#include "model/layout.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include "ops/int8_rows.h"

namespace cepe::model {

BatchLayout uniform_layout(const at::Tensor& tokens) {
  const int64_t batch = tokens.size(0);
  const int64_t length = tokens.size(1);
  BatchLayout layout;
  layout.tokens = tokens.reshape({-1});
  layout.positions = at::arange(length, tokens.options()).repeat({batch});
  layout.uniform_length = length;
  for (int64_t b = 0; b < batch; ++b) layout.sequences.push_back({b * length, length, 0, 0});
  return layout;
}

BatchLayout single_layout(const at::Tensor& tokens, int64_t cached) {
  BatchLayout layout;
  layout.tokens = tokens;
  layout.positions = at::arange(cached, cached + tokens.size(0), tokens.options());
  if (!tokens.is_cpu()) layout.slots = layout.positions.to(at::kLong);
  layout.sequences.push_back({0, tokens.size(0), cached, 0});
  return layout;
}

BatchLayout paged_layout(std::span<const PagedPiece> pieces, int64_t block_rows, at::Device device) {
  BatchLayout layout;
  layout.block_rows = block_rows;
  std::vector<int64_t> tokens, positions, slots;
  for (const PagedPiece& piece : pieces) {
    const auto first = static_cast<int64_t>(tokens.size()), count = static_cast<int64_t>(piece.tokens.size());
    layout.sequences.push_back({first, count, piece.cached, 0, {piece.blocks.begin(), piece.blocks.end()}});
    tokens.insert(tokens.end(), piece.tokens.begin(), piece.tokens.end());
    for (int64_t row = piece.cached; row < piece.cached + count; ++row) {
      positions.push_back(row);
      slots.push_back(piece.blocks[static_cast<size_t>(row / block_rows)] * block_rows + row % block_rows);
    }
  }
  const auto there = [&](const std::vector<int64_t>& values) { return at::tensor(values, at::kLong).to(device); };
  layout.tokens = there(tokens);
  layout.positions = there(positions);
  if (!device.is_cpu()) layout.slots = there(slots);
  return layout;
}

int64_t cache_slot_bytes(int64_t layers, int64_t groups, int64_t head_width, at::ScalarType type) {
  const int64_t head = type == at::kByte ? head_width + 4 : head_width * static_cast<int64_t>(at::elementSize(type));
  return 2 * layers * groups * head;
}

at::Tensor with_slots(const at::Tensor& cache, int64_t slots) {
  std::vector<int64_t> sizes = cache.sizes().vec();
  sizes.front() = slots;
  at::Tensor larger = cache.new_empty_strided(sizes, cache.strides());
  larger.narrow(0, 0, cache.size(0)).copy_(cache);
  return larger;
}

KvCache make_kv_cache(int64_t layers, int64_t slots, int64_t groups, int64_t head_width, at::TensorOptions options) {
  KvCache cache;
  const auto rows = [&] {
    return options.dtype() == at::kByte ? ops::empty_int8_heads(slots, groups, head_width, options.device())
                                        : at::empty({slots, groups, head_width}, options);
  };
  for (int64_t layer = 0; layer < layers; ++layer) {
    cache.keys.push_back(rows());
    cache.values.push_back(rows());
  }
  return cache;
}

}  // namespace cepe::model
