// Which two neighbouring tokens merge into which, and how early.
#pragma once

#include <cstdint>
#include <vector>

#include "text/tokenizer.h"

namespace cepe::text {

struct Merge {
  uint32_t rank = 0;  // lower merges first
  Token result = -1;
};

class MergeTable {
 public:
  explicit MergeTable(size_t expected = 0);
  // The last of two rules for the same pair holds.
  void set(Token left, Token right, Merge merge);
  const Merge* find(Token left, Token right) const;  // null where the two never merge
  size_t size() const { return count_; }
  template <class Each>
  void for_each(Each&& each) const {
    for (const Slot& slot : slots_) {
      if (slot.left >= 0) each(slot.left, slot.right, slot.merge);
    }
  }

 private:
  struct Slot {
    Token left = -1, right = -1;
    Merge merge;
  };
  Slot& slot_of(Token left, Token right);
  std::vector<Slot> slots_;  // open addressing, a power of two, at most half full
  size_t count_ = 0;
};

}  // namespace cepe::text
