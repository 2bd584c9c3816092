#include "engine/block_pool.h"

#include <algorithm>
#include <string>

#include "base/error.h"

namespace cepe::engine {
namespace {

void require(bool holds, const char* what, int64_t block) {
  if (!holds) throw base::Error(base::ErrorCode::internal, "cache block " + std::to_string(block) + " " + what);
}

}  // namespace

BlockPool::BlockPool(int64_t count) : count_(count) {}

int32_t BlockPool::claim(int32_t block) {
  free_.erase(block);
  if (block == reach_) {
    ++reach_;
    readers_.push_back(0);
  }
  readers_[static_cast<size_t>(block)] = 1;
  ++used_;
  return block;
}

int32_t BlockPool::take(int32_t after) {
  require(free() > 0, "is wanted and none is free", after);
  const int32_t next = after + 1;
  if (after >= 0 && (free_.contains(next) || (next == reach_ && next < count_))) return claim(next);
  return claim(free_.empty() ? static_cast<int32_t>(reach_) : *free_.begin());
}

void BlockPool::share(int32_t block) {
  require(block >= 0 && block < reach_ && readers_[static_cast<size_t>(block)] > 0, "is free and cannot be shared",
          block);
  ++readers_[static_cast<size_t>(block)];
}

void BlockPool::give_back(int32_t block) {
  require(block >= 0 && block < reach_ && readers_[static_cast<size_t>(block)] > 0, "is given back and was free",
          block);
  if (--readers_[static_cast<size_t>(block)] > 0) return;
  free_.insert(block);
  --used_;
}

void BlockPool::shrink(int64_t count) {
  for (int64_t block = count; block < reach_; ++block)
    require(readers_[static_cast<size_t>(block)] == 0, "is in use beyond the end", block);
  free_.erase(free_.lower_bound(static_cast<int32_t>(count)), free_.end());
  count_ = count;
  reach_ = std::min(reach_, count);
  readers_.resize(static_cast<size_t>(reach_));
}

}  // namespace cepe::engine
