#include "ops/shared_cores.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <chrono>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>

namespace cepe::ops {
namespace {

TEST(Crowding, IsFoundAndGivenUpByTwoWindowsInARow) {
  Crowding crowding;
  for (int i = 0; i < 9; ++i) EXPECT_FALSE(crowding.add(i % 2 == 0 ? 0.5 : 0.1));
  EXPECT_FALSE(crowding.add(0.1));
  EXPECT_FALSE(crowding.add(0.2));
  EXPECT_TRUE(crowding.add(0.2));
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(crowding.add(i % 2 == 0 ? 0.01 : 0.1));
  EXPECT_TRUE(crowding.add(-0.1));
  EXPECT_FALSE(crowding.add(0));
  EXPECT_FALSE(crowding.add(0.5));
}

// Seconds of processor time in which one thread waits for another that sleeps, ten times.
double time_of_waiting() {
  const auto seconds = [] {
    timespec time = {};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  };
  const double begun = seconds();
  for (int i = 0; i < 10; ++i) {
#pragma omp parallel num_threads(2)
    if (omp_get_thread_num() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return seconds() - begun;
}

TEST(IdleThreads, OthersSleepSoonerWhileTheyAreThere) {
  if (omp_get_num_procs() < 2) GTEST_SKIP() << "one processor: libgomp's threads never spin for long";
  if (std::getenv("OMP_WAIT_POLICY")) {  // read where a process begins: in one without it
    const std::string self = std::filesystem::read_symlink("/proc/self/exe");
    ASSERT_EQ(0, std::system(("env -u OMP_WAIT_POLICY -u OMP_NUM_THREADS '" + self +
                              "' --gtest_filter=IdleThreads.* >/dev/null")
                                 .c_str()));
    return;
  }
  const double before = time_of_waiting();
  std::optional<IdleThreads> idle(std::in_place, omp_get_max_threads());
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const double beside = time_of_waiting();
  idle.reset();
  const double after = time_of_waiting();
  EXPECT_LT(beside, 0.5 * before);
  EXPECT_LT(beside, 0.5 * after);
}

TEST(WorkOfAllThreads, IsNothingToNoticeWhereProcessorsAreFree) {
  for (int i = 0; i < 3; ++i) {
    const WorkOfAllThreads work;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace
}  // namespace cepe::ops
