#include "soak.h"

namespace cepe::engine {
namespace {

TEST(Soak, WhateverIsAskedTogetherEachAnswerIsTheOneAloneAndNothingIsLeft) {
  test::Soak soak;
  for (uint32_t seed = 0; seed < 4; ++seed) soak.run(seed);
  EXPECT_GT(soak.sum.steps, 5000);
  soak.expect_everything_was_met();
}

}  // namespace
}  // namespace cepe::engine
