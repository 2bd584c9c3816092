// A tier in memory: pages by key within a budget of bytes, those that were used longest ago going first. A page that
// anybody else still holds (the tensor or a view of it) is pinned: evicting it would free nothing. So a request pins
// its pages by having them, and lets go by dropping them. Not for several threads at once.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <list>
#include <map>

#include "context/chunk.h"

namespace cepe::context {

struct TierCounters {
  int64_t hits = 0, misses = 0, hit_bytes = 0, evicted = 0;
  int64_t pages = 0, bytes = 0;  // kept now; of tiers in memory
};

class MemoryTier {
 public:
  explicit MemoryTier(int64_t max_bytes) : max_bytes_(max_bytes) {}

  at::Tensor find(const ChunkKey& key);  // undefined where there is none
  // Takes the place of an earlier one. May leave the tier above its budget: `trim`.
  void put(const ChunkKey& key, at::Tensor page);
  // Evicts until the budget is kept or all that is left is pinned: looks at each page.
  void trim();
  // The same after each put: where all was pinned the last time, only once there is a quarter more, so that the pages
  // of one large request are not looked at again for each of them.
  void trim_when_grown();
  // Evicts one page that is not pinned. False where there is none, and after that for as many calls as a quarter of the
  // pages.
  bool evict_one();
  int64_t budget() const { return max_bytes_; }
  const TierCounters& counters() const { return counters_; }

 private:
  struct Page {
    ChunkKey key;
    at::Tensor tensor;
  };
  using Pages = std::list<Page>;
  Pages::iterator evict(Pages::iterator page);

  int64_t max_bytes_;
  Pages pages_;  // the one used longest ago first
  std::map<ChunkKey, Pages::iterator> places_;
  TierCounters counters_;
  int64_t trimmed_at_ = 0;  // bytes from which trim_when_grown looks again
  int64_t fruitless_ = 0;   // calls of evict_one that do not look
};

}  // namespace cepe::context
