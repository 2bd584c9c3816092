#include "model/cost_model.h"

#include <gtest/gtest.h>

namespace cepe::model {
namespace {

CrossAttentionCost llama_7b(int64_t rows, int64_t groups = 32) { return {rows, 131072, 32, groups, 128, 1024, false}; }
CrossAttentionCost smollm2(int64_t rows) { return {rows, 131072, 9, 3, 64, 576, false}; }
CrossAttentionCost on_gpu(CrossAttentionCost cost) {
  cost.cpu = false;
  return cost;
}

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

TEST(CostModel, AGpuReadsStatesForFewRowsThoughKAndVAreKept) {
  const auto chosen = [](CrossAttentionCost cost) {
    cost.kept_available = true;
    return cheapest(on_gpu(cost));
  };
  EXPECT_EQ(chosen(llama_7b(1)), CheapestPath::absorbed) << "2 kB a context row instead of 16";
  EXPECT_EQ(chosen(llama_7b(15)), CheapestPath::absorbed);
  EXPECT_EQ(chosen(llama_7b(16)), CheapestPath::kept) << "131,072 operations a row and query, an eighth of that kept";
  EXPECT_EQ(chosen(llama_7b(3, 8)), CheapestPath::absorbed);
  EXPECT_EQ(chosen(llama_7b(4, 8)), CheapestPath::kept);
  EXPECT_EQ(chosen(smollm2(1)), CheapestPath::kept) << "768 bytes instead of 1152";
}

TEST(CostModel, WhatAPassLosesWithoutKAndV) {
  // Bytes a context row: 64 rows absorbed take 131072 / 128 each, K and V 16384, and making these 2^24 / 128.
  EXPECT_EQ(projection_cost(on_gpu(llama_7b(1))), 131072);
  EXPECT_EQ(loss_without_kept(on_gpu(llama_7b(1))), 0);
  EXPECT_EQ(loss_without_kept(on_gpu(llama_7b(64))), 65536 - 16384);
  // Projected anew: that alone.
  EXPECT_EQ(loss_without_kept(on_gpu(llama_7b(2048))), 131072);
}

TEST(CostModel, KeepingNeedsRoomAndMustPay) {
  const CrossAttentionCost small = smollm2(1), large = llama_7b(1);
  const int64_t bytes = kept_bytes(small, 22, 2);
  EXPECT_EQ(bytes, int64_t{2} * 22 * 131072 * 3 * 64 * 2);
  EXPECT_TRUE(worth_keeping(small, bytes, int64_t{4} << 30));
  EXPECT_FALSE(worth_keeping(small, bytes, int64_t{2} << 30)) << "2.06 GiB do not fit 2";
  EXPECT_TRUE(worth_keeping(on_gpu(small), bytes, int64_t{4} << 30)) << "384 values to read instead of 576";
  EXPECT_FALSE(worth_keeping(on_gpu(large), kept_bytes(large, 32, 2), int64_t{1} << 40))
      << "8192 values to read instead of 1024";
}

}  // namespace
}  // namespace cepe::model
