#include "context/memory_tier.h"

namespace cepe::context {
namespace {

bool is_pinned(const at::Tensor& page) { return page.use_count() > 1 || page.storage().use_count() > 1; }

}  // namespace

at::Tensor MemoryTier::find(const ChunkKey& key) {
  const auto place = places_.find(key);
  if (place == places_.end()) {
    ++counters_.misses;
    return {};
  }
  pages_.splice(pages_.end(), pages_, place->second);
  ++counters_.hits;
  counters_.hit_bytes += static_cast<int64_t>(place->second->tensor.nbytes());
  return place->second->tensor;
}

void MemoryTier::put(const ChunkKey& key, at::Tensor page) {
  if (const auto place = places_.find(key); place != places_.end()) evict(place->second);
  ++counters_.pages;
  counters_.bytes += static_cast<int64_t>(page.nbytes());
  places_[key] = pages_.insert(pages_.end(), {key, std::move(page)});
}

MemoryTier::Pages::iterator MemoryTier::evict(Pages::iterator page) {
  --counters_.pages;
  counters_.bytes -= static_cast<int64_t>(page->tensor.nbytes());
  places_.erase(page->key);
  return pages_.erase(page);
}

void MemoryTier::trim() {
  for (auto page = pages_.begin(); page != pages_.end() && counters_.bytes > max_bytes_;) {
    if (is_pinned(page->tensor)) {
      ++page;
      continue;
    }
    page = evict(page);
    ++counters_.evicted;
  }
  trimmed_at_ = counters_.bytes > max_bytes_ ? counters_.bytes + counters_.bytes / 4 : 0;
}

void MemoryTier::trim_when_grown() {
  if (counters_.bytes > max_bytes_ && counters_.bytes >= trimmed_at_) trim();
}

bool MemoryTier::evict_one() {
  if (fruitless_ > 0) {
    --fruitless_;
    return false;
  }
  for (auto page = pages_.begin(); page != pages_.end(); ++page) {
    if (is_pinned(page->tensor)) continue;
    evict(page);
    ++counters_.evicted;
    return true;
  }
  fruitless_ = counters_.pages / 4;
  return false;
}

}  // namespace cepe::context
