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

void MemoryTier::trim_to(int64_t bytes) {
  for (auto page = pages_.begin(); page != pages_.end() && counters_.bytes > bytes;) {
    if (is_pinned(page->tensor)) {
      ++page;
      continue;
    }
    page = evict(page);
    ++counters_.evicted;
  }
}

bool MemoryTier::evict_one() {
  const int64_t before = counters_.pages;
  for (auto page = pages_.begin(); page != pages_.end(); ++page) {
    if (is_pinned(page->tensor)) continue;
    evict(page);
    ++counters_.evicted;
    break;
  }
  return counters_.pages < before;
}

}  // namespace cepe::context
