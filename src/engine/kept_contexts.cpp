#include "engine/kept_contexts.h"

#include <algorithm>
#include <map>
#include <span>

#include "ops/int8_context.h"

namespace cepe::engine {

void KeptContexts::drop_expired() {
  std::erase_if(contexts_, [](const auto& context) { return context.expired(); });
}

void KeptContexts::add(const ContextPointer& context) {
  drop_expired();
  if (!context->kept.empty()) contexts_.push_back(context);
}

int64_t KeptContexts::bytes() {
  drop_expired();
  std::map<const void*, int64_t> tensors;  // by where they lie
  const auto add_tensor = [&](const at::Tensor& tensor) {
    tensors[tensor.const_data_ptr()] = static_cast<int64_t>(tensor.nbytes());
  };
  for (const auto& known : contexts_) {
    const ContextPointer context = known.lock();
    if (!context) continue;
    std::span<const at::Tensor> before;  // the memory of the layer before: layers that stand page by page share theirs
    for (const model::ContextStates::Projected& kept : context->kept) {
      if (kept.in_8_bits) {
        const std::vector<at::Tensor>& memory = kept.in_8_bits->memory;
        const auto same = [](const at::Tensor& one, const at::Tensor& other) { return one.is_same(other); };
        if (!std::ranges::equal(memory, before, same))
          for (const at::Tensor& part : memory) add_tensor(part);
        before = memory;
      } else {
        add_tensor(kept.keys);
        add_tensor(kept.values);
      }
    }
  }
  int64_t sum = 0;
  for (const auto& [place, bytes] : tensors) sum += bytes;
  return sum;
}

}  // namespace cepe::engine
