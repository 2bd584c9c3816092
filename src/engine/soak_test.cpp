#include "soak.h"

namespace cepe::engine {
namespace {

TEST(Soak, WhateverIsAskedTogetherEachAnswerIsTheOneAloneAndNothingIsLeft) {
  test::Soak soak;
  for (uint32_t seed = 0; seed < 4; ++seed) soak.run(seed);
  EXPECT_GT(soak.answers, 300);
  EXPECT_GT(soak.cancelled, 30);
  EXPECT_GT(soak.thrown, 3);
  EXPECT_GT(soak.sum.steps, 5000);
  EXPECT_GT(soak.sum.steps_by_tables, 1000);
  EXPECT_GT(soak.sum.preemptions, 10);
  EXPECT_GT(soak.sum.hot_contexts, 0);
}

}  // namespace
}  // namespace cepe::engine
