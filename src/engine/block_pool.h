// Which blocks of the self-attention cache are free, and how many sequences read each. No tensors.
#pragma once

#include <cstdint>
#include <set>
#include <vector>

namespace cepe::engine {

constexpr int64_t block_rows = 64;  // rows of one block

class BlockPool {
 public:
  // Blocks 0 .. count - 1, all free.
  explicit BlockPool(int64_t count);

  int64_t count() const { return count_; }
  int64_t free() const { return count_ - used_; }
  // The largest block that was ever taken, plus one: so many the cache must have.
  int64_t reach() const { return reach_; }

  // A free block, read by one: the one behind `after` where that is free (runs are read faster), else the lowest.
  // Errors: internal where none is free.
  int32_t take(int32_t after = -1);
  void share(int32_t block);      // one reader more
  void give_back(int32_t block);  // one less; free where that was the last

  // From now on only blocks below `count`; those beyond must be free. Errors: internal where one is not.
  void shrink(int64_t count);

 private:
  int32_t claim(int32_t block);

  int64_t count_, used_ = 0, reach_ = 0;
  std::set<int32_t> free_;        // below reach_
  std::vector<int32_t> readers_;  // [reach_]
};

}  // namespace cepe::engine
