#include "engine/slid_contexts.h"

#include <algorithm>

namespace cepe::engine {

ContextPointer SlidContexts::find(const ContextPointer& from, const context::ContextStore& store,
                                  std::span<const text::Token> moved) {
  std::erase_if(entries_, [](const Entry& entry) { return entry.from.expired() || entry.slid.expired(); });
  for (const Entry& entry : entries_) {
    if (entry.store == &store && entry.from.lock() == from && std::ranges::equal(entry.moved, moved))
      return entry.slid.lock();
  }
  return nullptr;
}

void SlidContexts::add(const ContextPointer& from, const context::ContextStore& store,
                       std::span<const text::Token> moved, const ContextPointer& slid) {
  entries_.push_back({from, slid, &store, {moved.begin(), moved.end()}});
}

}  // namespace cepe::engine
