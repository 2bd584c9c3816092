#include "data/random_numbers.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "data/mixture.h"
#include "expect_error.h"

namespace cepe::data {
namespace {

TEST(RandomNumbers, MixIsSplitMix64) {
  // The first outputs of SplitMix64 from the states 0 and 1234567, as published with it.
  EXPECT_EQ(mix(0), 0xe220a8397b1dcdafULL);
  EXPECT_EQ(mix(0x9e3779b97f4a7c15ULL), 0x6e789e6aa1b965f4ULL);
  EXPECT_EQ(mix(1234567), 6457827717110365317ULL);
}

TEST(RandomNumbers, EachPurposeAndItsOrderCount) {
  std::set<uint64_t> seen{random_bits(1, 2), random_bits(2, 1), random_bits(1, 2, 0), random_bits(1),
                          random_bits(1, 3)};
  EXPECT_EQ(seen.size(), 5u);
}

TEST(RandomNumbers, BelowReachesEveryNumberAndNoOther) {
  std::vector<int> counts(10, 0);
  for (uint64_t i = 0; i < 10'000; ++i) ++counts.at(below(random_bits(5, i), 10));
  for (const int count : counts) EXPECT_NEAR(count, 1000, 150);
  EXPECT_EQ(below(~uint64_t{0}, 10), 9u);
  EXPECT_EQ(below(0, 10), 0u);
}

TEST(RandomNumbers, PermutedVisitsEachPlaceOnceForAnyCount) {
  for (const uint64_t count : {1, 2, 3, 4, 5, 16, 17, 255, 1000, 4097}) {
    std::set<uint64_t> seen;
    for (uint64_t i = 0; i < count; ++i) {
      const uint64_t place = permuted(i, count, 42);
      ASSERT_LT(place, count);
      ASSERT_TRUE(seen.insert(place).second);
    }
  }
  EXPECT_LT(permuted(12345, ~uint64_t{0}, 1), ~uint64_t{0});
}

TEST(RandomNumbers, EachKeyOrdersOtherwise) {
  int same = 0, fixed = 0;
  for (uint64_t i = 0; i < 1000; ++i) {
    same += permuted(i, 1000, 1) == permuted(i, 1000, 2) ? 1 : 0;
    fixed += permuted(i, 1000, 1) == i ? 1 : 0;
  }
  EXPECT_LT(same, 10);
  EXPECT_LT(fixed, 10);
}

TEST(MixtureOrder, APeriodHoldsTheSharesExactlyAndRanksCount) {
  const std::vector<double> weights{0.5, 0.25, 0.25, 0, 1e-9};
  const MixtureOrder order(weights, 3);
  EXPECT_EQ(order.share(3), 0u);
  EXPECT_EQ(order.share(4), 1u);
  std::vector<uint64_t> so_far(weights.size(), 0);
  for (uint64_t i = 0; i < 3 * MixtureOrder::period; ++i) {
    const MixtureOrder::Place place = order.at(i);
    ASSERT_EQ(place.rank, so_far.at(place.part)++);
  }
  for (size_t part = 0; part < weights.size(); ++part) EXPECT_EQ(so_far[part], 3 * order.share(part));
  EXPECT_NEAR(static_cast<double>(order.share(0)), 32768, 1);
}

TEST(MixtureOrder, OnePartHasAll) {
  const std::vector<double> weights{7};
  const MixtureOrder order(weights, 0);
  EXPECT_EQ(order.at(MixtureOrder::period * 5 + 17).rank, MixtureOrder::period * 5 + 17);
}

}  // namespace
}  // namespace cepe::data
