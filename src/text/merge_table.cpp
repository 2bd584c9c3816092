#include "text/merge_table.h"

#include <bit>

namespace cepe::text {
namespace {

size_t pair_hash(Token left, Token right) {
  uint64_t key = static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  key = (key ^ (key >> 32)) * 0x9E3779B97F4A7C15ULL;
  return static_cast<size_t>(key ^ (key >> 29));
}

}  // namespace

MergeTable::MergeTable(size_t expected) : slots_(std::bit_ceil(2 * expected + 16)) {}

MergeTable::Slot& MergeTable::slot_of(Token left, Token right) {
  const size_t mask = slots_.size() - 1;
  size_t at = pair_hash(left, right) & mask;
  while (slots_[at].left >= 0 && (slots_[at].left != left || slots_[at].right != right)) at = (at + 1) & mask;
  return slots_[at];
}

void MergeTable::set(Token left, Token right, Merge merge) {
  if (2 * (count_ + 1) > slots_.size()) {
    std::vector<Slot> old(slots_.size() * 2);
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.left >= 0) slot_of(slot.left, slot.right) = slot;
    }
  }
  Slot& slot = slot_of(left, right);
  if (slot.left < 0) ++count_;
  slot = {left, right, merge};
}

const Merge* MergeTable::find(Token left, Token right) const {
  const size_t mask = slots_.size() - 1;
  for (size_t at = pair_hash(left, right) & mask; slots_[at].left >= 0; at = (at + 1) & mask) {
    if (slots_[at].left == left && slots_[at].right == right) return &slots_[at].merge;
  }
  return nullptr;
}

}  // namespace cepe::text
