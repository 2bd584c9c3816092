#include "train/schedule.h"

#include <gtest/gtest.h>

namespace cepe::train {
namespace {

TEST(Schedule, CosineWarmsUpAndFallsToZero) {
  const ScheduleSettings cosine = {.kind = "cosine", .warm_up = 0.04};
  EXPECT_DOUBLE_EQ(rate_at(cosine, 0, 100), 0.25);
  EXPECT_DOUBLE_EQ(rate_at(cosine, 3, 100), 1);
  EXPECT_DOUBLE_EQ(rate_at(cosine, 4, 100), 1);
  EXPECT_NEAR(rate_at(cosine, 52, 100), 0.5, 1e-12);
  EXPECT_NEAR(rate_at(cosine, 100, 100), 0, 1e-12);
}

TEST(Schedule, ConstantThenLinearOverTheLastHalf) {
  const ScheduleSettings half = {.kind = "linear", .warm_up = 0, .decay_from = 0.5};
  EXPECT_DOUBLE_EQ(rate_at(half, 0, 200), 1);
  EXPECT_DOUBLE_EQ(rate_at(half, 100, 200), 1);
  EXPECT_DOUBLE_EQ(rate_at(half, 150, 200), 0.5);
  EXPECT_NEAR(rate_at(half, 199, 200), 0.01, 1e-12);
}

TEST(Schedule, ConstantStays) {
  const ScheduleSettings constant = {.kind = "constant", .warm_up = 0.1};
  EXPECT_DOUBLE_EQ(rate_at(constant, 1, 20), 1);
  EXPECT_DOUBLE_EQ(rate_at(constant, 19, 20), 1);
}

}  // namespace
}  // namespace cepe::train
