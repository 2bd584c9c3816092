#include "context/memory_tier.h"

#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <vector>

namespace cepe::context {
namespace {

ChunkKey key(int number) { return key_of(std::vector<text::Token>{number}, {}); }
at::Tensor page() { return at::empty({256}, at::kFloat); }  // 1 KiB

TEST(MemoryTier, KeepsItsBudgetAndThoseUsedLast) {
  MemoryTier tier(3 << 10);
  for (int i = 0; i < 5; ++i) {
    if (i == 3) tier.find(key(0));
    tier.put(key(i), page());
    tier.trim_when_grown();
    EXPECT_LE(tier.counters().bytes, 3 << 10);
  }
  EXPECT_TRUE(tier.find(key(0)).defined());
  EXPECT_FALSE(tier.find(key(1)).defined());
  EXPECT_EQ(tier.counters().evicted, 2);
}

// The pages of one large request: looking at all of them after each would take a square of their number.
TEST(MemoryTier, PagesThatAreHeldAreLookedAtAgainOnlyWhenThereIsAQuarterMore) {
  MemoryTier tier(0);
  std::vector<at::Tensor> held;
  for (int i = 0; i < 100; ++i) {
    held.push_back(page());
    tier.put(key(i), held.back());
    tier.trim_when_grown();
  }
  EXPECT_EQ(tier.counters().pages, 100);
  held.clear();
  for (int i = 100; i < 140; ++i) {
    tier.put(key(i), page());
    tier.trim_when_grown();
  }
  EXPECT_LT(tier.counters().pages, 40) << "they went meanwhile, though nobody asked for it";
  tier.trim();
  EXPECT_EQ(tier.counters().pages, 0);
}

TEST(MemoryTier, EvictsOneThatNobodyHolds) {
  MemoryTier tier(1 << 20);
  std::vector<at::Tensor> held;
  for (int i = 0; i < 8; ++i) {
    held.push_back(page());
    tier.put(key(i), held.back());
  }
  EXPECT_FALSE(tier.evict_one());
  held.erase(held.begin() + 5);
  int tries = 1;
  while (!tier.evict_one()) ASSERT_LT(++tries, 8);
  EXPECT_EQ(tries, 3) << "it does not look at all pages each time";
  EXPECT_FALSE(tier.find(key(5)).defined());
  EXPECT_EQ(tier.counters().pages, 7);
}

}  // namespace
}  // namespace cepe::context
