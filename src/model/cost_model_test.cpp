#include "model/cost_model.h"

#include <gtest/gtest.h>

namespace cepe::model {
namespace {

CrossAttentionCost llama_7b(int64_t rows, int64_t groups = 32) { return {rows, 131072, 32, groups, 128, 1024, false}; }
CrossAttentionCost smollm2(int64_t rows) { return {rows, 131072, 9, 3, 64, 576, false}; }

TEST(CostModel, AbsorbingIsCheaperBelowThePublishedNumberOfRows) {
  EXPECT_EQ(cheapest(llama_7b(146)), CheapestPath::absorbed);
  EXPECT_EQ(cheapest(llama_7b(147)), CheapestPath::projected);
  EXPECT_EQ(cheapest(llama_7b(36, 8)), CheapestPath::absorbed);
  EXPECT_EQ(cheapest(llama_7b(37, 8)), CheapestPath::projected);
  EXPECT_EQ(cheapest(smollm2(24)), CheapestPath::absorbed);
  EXPECT_EQ(cheapest(smollm2(25)), CheapestPath::projected);
}

TEST(CostModel, WhatIsKeptIsUsed) {
  CrossAttentionCost cost = llama_7b(1);
  cost.kept_available = true;
  EXPECT_EQ(cheapest(cost), CheapestPath::kept);
}

TEST(CostModel, KeepingNeedsRoomAndMustPay) {
  const CrossAttentionCost small = smollm2(1), large = llama_7b(1);
  EXPECT_EQ(kept_bytes(small, 22, 2), int64_t{2} * 22 * 131072 * 3 * 64 * 2);
  EXPECT_TRUE(worth_keeping(small, 22, 2, int64_t{4} << 30, true));
  EXPECT_FALSE(worth_keeping(small, 22, 2, int64_t{2} << 30, true)) << "2.06 GiB do not fit 2";
  EXPECT_TRUE(worth_keeping(small, 22, 2, int64_t{4} << 30, false)) << "384 values to read instead of 576";
  EXPECT_FALSE(worth_keeping(large, 32, 2, int64_t{1} << 40, false)) << "8192 values to read instead of 1024";
}

}  // namespace
}  // namespace cepe::model
