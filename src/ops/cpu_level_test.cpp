// Which vector instructions are taken, and how one asks for others.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "ops/cpu/kernels.h"

namespace cepe::ops::cpu {
namespace {

// The level, and what is said on standard error.
std::pair<Level, std::string> asked(std::string_view name) {
  testing::internal::CaptureStderr();
  const Level level = level_asked_for(name);
  return {level, testing::internal::GetCapturedStderr()};
}

TEST(CpuLevel, IsTheBestOrThatWhichIsAskedFor) {
  EXPECT_EQ(asked("portable"), std::pair(Level::portable, std::string()));
  const auto [best, said] = asked("");
  EXPECT_EQ(said, "");
  const Level before = level();
  EXPECT_TRUE(choose_level(best));
  choose_level(before);
}

TEST(CpuLevel, ThatIsMisspeltIsToldWithThoseThatThereAre) {
  const Level best = asked("").first;
  for (const std::string name : {"avx-2", "AVX2", "avx512 ", "sse"}) {
    const auto [level, said] = asked(name);
    EXPECT_EQ(level, best);
    EXPECT_THAT(
        said, testing::StartsWith("warning: CEPE_CPU_LEVEL is '" + name + "'; it must be portable, avx2 or avx512: "));
  }
}

TEST(CpuLevel, ThatTheProcessorLacksIsTold) {
  const Level before = level();
  if (choose_level(Level::avx512)) {
    choose_level(before);
    GTEST_SKIP() << "this processor has them all";
  }
  EXPECT_THAT(asked("avx512").second, testing::HasSubstr("which this processor lacks"));
}

}  // namespace
}  // namespace cepe::ops::cpu
