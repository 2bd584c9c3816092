// What was acknowledged survives: the machine stopping at any operation, and the process being killed at any moment.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <random>
#include <set>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "context/disk_tier.h"
#include "crashing_database.h"
#include "disk_records.h"

namespace cepe::context {
namespace {

using test::CrashingDatabase;
using test::CrashingFiles;
using test::Found;

class DiskCrash : public testing::Test {
 protected:
  void SetUp() override { base::set_log_level(base::LogLevel::error); }
  void TearDown() override { base::set_log_level(base::LogLevel::notice); }
};

// One folder that is written to, loses its machine, and is opened again, again and again.
class Outages {
 public:
  explicit Outages(uint64_t seed) : random_(seed), files_(seed), database_(files_, "crash-" + std::to_string(seed)) {}

  void write_until_crash(int64_t operations) {
    files_.crash_after(operations);
    try {
      DiskTier tier(options(), files_);
      while (!files_.stopped()) step(tier);
    } catch (const test::Crash&) {
    } catch (const base::Error&) {  // of SQLite's files
    }
    files_.restart();
    DiskTier tier(options(), files_);
    for (const int number : acknowledged_)
      ASSERT_EQ(test::find(tier, number), Found::right) << "record " << number << " was acknowledged";
    for (const int number : attempted_) ASSERT_NE(test::find(tier, number), Found::wrong) << "record " << number;
    ASSERT_TRUE(test::put(tier, {++last_})) << "what is left can be written to";
    acknowledged_.insert(last_);
  }
  size_t acknowledged() const { return acknowledged_.size(); }

 private:
  DiskTierOptions options() const { return {"/chunks", int64_t{1} << 30, 2000, database_.name()}; }

  void step(DiskTier& tier) {
    const uint64_t what = random_() % 8;
    if (what == 0) {
      tier.collect();
    } else if (what == 1 && !acknowledged_.empty()) {
      test::find(tier, *acknowledged_.begin());
      tier.flush();
    } else {
      std::vector<int> numbers;
      for (uint64_t i = 0; i < 1 + random_() % 4; ++i) numbers.push_back(++last_);
      // Written again they leave dead bytes behind, which collecting compacts.
      if (what < 5 && !acknowledged_.empty()) numbers.assign(acknowledged_.begin(), std::next(acknowledged_.begin()));
      attempted_.insert(numbers.begin(), numbers.end());
      if (test::put(tier, numbers)) acknowledged_.insert(numbers.begin(), numbers.end());
    }
  }

  std::mt19937_64 random_;
  CrashingFiles files_;
  CrashingDatabase database_;
  int last_ = 0;
  std::set<int> acknowledged_, attempted_;
};

TEST_F(DiskCrash, NothingAcknowledgedIsLostAtAThousandMomentsOfAnOutage) {
  std::mt19937_64 random(1);
  size_t acknowledged = 0;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    Outages outages(seed);
    for (int crash = 0; crash < 10; ++crash) {
      SCOPED_TRACE("folder " + std::to_string(seed) + ", outage " + std::to_string(crash));
      outages.write_until_crash(static_cast<int64_t>(random() % 600));
      ASSERT_FALSE(HasFatalFailure());
    }
    acknowledged += outages.acknowledged();
  }
  EXPECT_GT(acknowledged, 3000u);
}

TEST_F(DiskCrash, AnErrorAtAnyOperationCostsNothingAcknowledged) {
  for (int64_t operation = 0; operation < 300; ++operation) {
    SCOPED_TRACE("operation " + std::to_string(operation));
    CrashingFiles files(3);
    const CrashingDatabase database(files, "refusing");
    const DiskTierOptions options{"/chunks", int64_t{1} << 30, 2000, database.name()};
    std::set<int> acknowledged;
    {
      files.fail_after(operation);
      DiskTier tier(options, files);
      for (int number = 1; number <= 12; number += 2)
        if (test::put(tier, {number, number + 1})) acknowledged.insert({number, number + 1});
    }
    files.fail_after(1000000);
    DiskTier again(options, files);
    for (const int number : acknowledged) ASSERT_EQ(test::find(again, number), Found::right) << number;
    ASSERT_TRUE(test::put(again, {100}));
  }
}

// Writes on and on, and tells each record once it is acknowledged.
[[noreturn]] void write_and_tell(const base::Path& folder, int first, int pipe) {
  DiskTier tier({folder, int64_t{1} << 30, 20000});
  for (int number = first;; number += 3) {
    if (!test::put(tier, {number, number + 1, number + 2})) ::_exit(1);
    if (!test::put(tier, {number, number + 1})) ::_exit(1);  // again: dead bytes, which collecting compacts
    if (number % 7 == 0) tier.collect();
    if (::write(pipe, &number, sizeof number) != sizeof number) ::_exit(1);
  }
}

TEST_F(DiskCrash, TwoProcessesKilledAtAHundredMomentsEachHaveWhatTheyAcknowledged) {
  const base::Path folder = test::quick_folder() / ("cepe-killed-" + std::to_string(::getpid()));
  std::mt19937_64 random(5);
  std::vector<int> acknowledged;
  int first = 0;
  for (int round = 0; round < 100; ++round) {
    int ends[2];
    ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    pid_t children[2];
    for (pid_t& child : children) {
      first += 1000000;
      child = ::fork();
      if (child == 0) write_and_tell(folder, first, ends[1]);
    }
    ::close(ends[1]);
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 60000));
    for (const pid_t child : children) {
      ::kill(child, SIGKILL);
      int status = 0;
      ::waitpid(child, &status, 0);
      ASSERT_TRUE(WIFSIGNALED(status)) << "round " << round << ": it gave up by itself";
    }
    for (int number = 0; ::read(ends[0], &number, sizeof number) == sizeof number;)
      for (int i = 0; i < 3; ++i) acknowledged.push_back(number + i);
    ::close(ends[0]);
    if (round % 10 != 9) continue;
    DiskTier tier({folder, int64_t{1} << 30, 20000});
    for (const int number : acknowledged) ASSERT_EQ(test::find(tier, number), Found::right) << number;
  }
  DiskTier tier({folder, int64_t{1} << 30, 20000});
  EXPECT_EQ(tier.verify().damaged, 0);
  tier.collect();
  for (const int number : acknowledged) ASSERT_EQ(test::find(tier, number), Found::right) << number;
  EXPECT_GT(acknowledged.size(), 500u);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace cepe::context
