#include "train/team.h"

#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <stdexcept>

namespace cepe::train {
namespace {

TEST(Team, EveryMemberWorksOnceARoundAndKeepsItsThread) {
  Team team(4);
  std::vector<std::thread::id> threads(4);
  team.run([&](size_t member) { threads[member] = std::this_thread::get_id(); });
  EXPECT_EQ(std::set<std::thread::id>(threads.begin(), threads.end()).size(), 4U);
  std::vector<int> rounds(4, 0);
  for (int round = 0; round < 500; ++round) {
    team.run([&](size_t member) {
      EXPECT_EQ(threads[member], std::this_thread::get_id());
      ++rounds[member];
    });
  }
  EXPECT_EQ(rounds, std::vector<int>(4, 500));
}

TEST(Team, OneMemberWorksInTheCallersThread) {
  Team team(1);
  std::thread::id worker;
  team.run([&](size_t) { worker = std::this_thread::get_id(); });
  EXPECT_EQ(worker, std::this_thread::get_id());
}

TEST(Team, TheFirstMembersErrorComesOutWhenAllAreOverAndTheNextRoundWorks) {
  Team team(3);
  std::atomic<int> over = 0;
  const auto fails = [&](size_t member) {
    ++over;
    if (member > 0) throw std::runtime_error("member " + std::to_string(member));
  };
  for (int round = 1; round <= 3; ++round) {
    try {
      team.run(fails);
      FAIL() << "no error";
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "member 1");
    }
    EXPECT_EQ(over, 3 * round);
  }
  team.run([&](size_t) { ++over; });
  EXPECT_EQ(over, 12);
}

}  // namespace
}  // namespace cepe::train
