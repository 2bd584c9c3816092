#include "context/page_arena.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <mutex>
#include <vector>

namespace cepe::context {

struct PageArena::Slots {
  at::Tensor memory;  // [slots, rows, E]
  mutable std::mutex mutex;
  std::vector<int64_t> free;
};

PageArena::PageArena(int64_t bytes, int64_t rows, int64_t width, at::ScalarType type, at::Device device)
    : slots_(std::make_shared<Slots>()) {
  const auto slot = rows * width * static_cast<int64_t>(c10::elementSize(type));
  const int64_t count = bytes / slot;
  slots_->memory = at::empty({count, rows, width}, at::TensorOptions(device).dtype(type));
  for (int64_t i = count; i-- > 0;) slots_->free.push_back(i);
}

at::Tensor PageArena::take(int64_t rows) {
  const std::scoped_lock lock(slots_->mutex);
  if (slots_->free.empty() || rows > slots_->memory.size(1)) return {};
  const int64_t slot = slots_->free.back();
  slots_->free.pop_back();
  const at::Tensor page = slots_->memory[slot];
  const auto give_back = [slots = slots_, slot](void*) {
    const std::scoped_lock locked(slots->mutex);
    slots->free.push_back(slot);
  };
  return at::from_blob(page.mutable_data_ptr(), {rows, page.size(1)}, give_back, page.options(), page.device());
}

int64_t PageArena::slots() const { return slots_->memory.size(0); }

}  // namespace cepe::context
