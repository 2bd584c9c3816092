#include "base/progress.h"

#include <gtest/gtest.h>

namespace cepe::base {
namespace {

TEST(Progress, ARateIsShownByDigitsThatMeanSomething) {
  EXPECT_EQ(human_rate(1234.5, "tokens"), "1234 tokens/s");
  EXPECT_EQ(human_rate(2.75, "windows"), "2.8 windows/s");
  EXPECT_EQ(human_rate(0.4, "windows"), "0.4 windows/s");
  EXPECT_EQ(human_rate(0.0123, "windows"), "0.012 windows/s");
  EXPECT_EQ(human_rate(0, "windows"), "0 windows/s");
}

}  // namespace
}  // namespace cepe::base
