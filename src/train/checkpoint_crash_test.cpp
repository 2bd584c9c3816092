#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <random>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "checkpoint_states.h"
#include "crashing_files.h"
#include "train/checkpoint.h"
#include "train/checkpoint_step.h"

namespace cepe::train {
namespace {

using test::CrashingFiles;

class CheckpointCrash : public testing::Test {
 protected:
  void SetUp() override { base::set_log_level(base::LogLevel::warning); }
  void TearDown() override { base::set_log_level(base::LogLevel::notice); }
};

struct Saved {
  int64_t step;
  int64_t version;
};

bool holds(const std::pair<int64_t, CheckpointState>& found, const std::optional<Saved>& saved) {
  return saved && found.first == saved->step && test::same(found.second, test::state_of(saved->step, saved->version));
}

base::Path step_folder(const base::Path& folder, int64_t step) {
  std::string digits = std::to_string(step);
  return folder / ("step-" + std::string(8 - digits.size(), '0') + digits);
}

// One run that saves, is stopped, and goes on, again and again.
class TrainingRun {
 public:
  explicit TrainingRun(uint64_t seed) : random_(seed), files_(seed), keep_(1 + static_cast<int64_t>(seed % 3)) {}

  // Until the machine stops, after so many operations.
  void save_until_crash(int64_t operations) {
    files_.crash_after(operations);
    try {
      CheckpointFolder checkpoints("/runs/first", keep_, files_);
      check(checkpoints.load_newest());
      while (true) save_next(checkpoints);
    } catch (const test::Crash&) {
      files_.restart();
    }
    CrashingFiles found = files_.copy();
    CheckpointFolder checkpoints("/runs/first", keep_, found);
    for (const int64_t step : checkpoints.steps()) read_step(found, step_folder("/runs/first", step), step);
    check(checkpoints.load_newest());
  }

  int64_t acknowledged_found = 0;
  int64_t newer_found = 0;

 private:
  void save_next(CheckpointFolder& checkpoints) {
    const int64_t step = acknowledged_ ? acknowledged_->step : 0;
    attempted_ = Saved{random_() % 4 ? step + 100 : step, ++version_};
    checkpoints.save(attempted_->step, test::state_of(attempted_->step, attempted_->version));
    acknowledged_ = attempted_;
    attempted_.reset();
  }

  void check(const std::optional<std::pair<int64_t, CheckpointState>>& found) {
    if (!found) {
      ASSERT_FALSE(acknowledged_) << "step " << acknowledged_->step << " was acknowledged and is gone";
      return;
    }
    if (holds(*found, attempted_)) {  // from here on it is on the medium, and must stay there
      ++newer_found;
      acknowledged_ = attempted_;
    } else {
      ++acknowledged_found;
      ASSERT_TRUE(holds(*found, acknowledged_))
          << "step " << found->first << ", version " << found->second.state["version"];
    }
    attempted_.reset();
  }

  std::mt19937_64 random_;
  CrashingFiles files_;
  int64_t keep_;
  int64_t version_ = 0;
  std::optional<Saved> acknowledged_;
  std::optional<Saved> attempted_;
};

TEST_F(CheckpointCrash, NothingAcknowledgedIsLostAtAThousandMomentsOfAnOutage) {
  std::mt19937_64 random(1);
  int64_t acknowledged = 0, newer = 0;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    TrainingRun run(seed);
    for (int crash = 0; crash < 10; ++crash) {
      SCOPED_TRACE("run " + std::to_string(seed) + ", crash " + std::to_string(crash));
      run.save_until_crash(static_cast<int64_t>(random() % 120));
      ASSERT_FALSE(HasFatalFailure());
    }
    acknowledged += run.acknowledged_found;
    newer += run.newer_found;
  }
  EXPECT_GT(acknowledged, 500);
  EXPECT_GT(newer, 50) << "crashes between the renaming and the answer are among them";
}

// Runs until the `operations`th operation.
template <class Action>
void interrupted(CrashingFiles& files, int64_t operations, Action action) {
  files.crash_after(operations);
  try {
    action();
  } catch (const test::Crash&) {
  }
}

TEST_F(CheckpointCrash, AProgramKilledAnywhereAndAnOutageSoonAfterTheNextStartLoseNothing) {
  for (const int64_t second : {100, 200}) {  // the same step once more, or the next
    for (int64_t killed = 0; killed < 45; ++killed) {
      for (int64_t outage = 0; outage < 15; ++outage) {
        for (uint64_t seed = 0; seed < 6; ++seed) {
          CrashingFiles files(seed * 1000 + static_cast<uint64_t>(killed * 20 + outage));
          CheckpointFolder("/run", 1, files).save(100, test::state_of(100, 1));
          interrupted(files, killed,
                      [&] { CheckpointFolder("/run", 1, files).save(second, test::state_of(second, 2)); });
          files.restart_process();
          interrupted(files, outage, [&] { CheckpointFolder again("/run", 1, files); });
          files.restart();
          const auto found = CheckpointFolder("/run", 1, files).load_newest();
          ASSERT_TRUE(found && (holds(*found, Saved{100, 1}) || holds(*found, Saved{second, 2})))
              << "killed at " << killed << ", outage at " << outage << ", seed " << seed;
        }
      }
    }
  }
}

// The machine goes on, one operation does not succeed.
TEST_F(CheckpointCrash, AnErrorAtAnyOperationLeavesTheEarlierCheckpointAndTheNextSaveWorks) {
  base::set_log_level(base::LogLevel::error);
  int64_t refused = 0;
  for (const int64_t again : {0, 100}) {  // the same step once more, or the next
    for (int64_t operation = 0; operation < 60; ++operation) {
      SCOPED_TRACE("step " + std::to_string(100 + again) + ", operation " + std::to_string(operation));
      CrashingFiles files(7);
      CheckpointFolder checkpoints("/run", 1, files);
      checkpoints.save(100, test::state_of(100));
      files.fail_after(operation);
      bool failed = false;
      try {
        checkpoints.save(100 + again, test::state_of(100 + again, 1));
      } catch (const base::Error& error) {
        failed = true;
        EXPECT_EQ(error.code(), base::ErrorCode::io);
      }
      refused += failed;
      files.fail_after(1000);
      const auto found = CheckpointFolder("/run", 1, files).load_newest();
      ASSERT_TRUE(found);
      EXPECT_TRUE(holds(*found, Saved{100 + again, 1}) || (failed && holds(*found, Saved{100, 0})));
      checkpoints.save(300, test::state_of(300));
      EXPECT_EQ(checkpoints.steps(), std::vector<int64_t>{300});
    }
  }
  EXPECT_GT(refused, 20);
}

TEST_F(CheckpointCrash, AFullDiskIsAPlainErrorAndTheEarlierCheckpointStands) {
  base::set_log_level(base::LogLevel::error);
  for (const int64_t room : {0, 10, 300, 600}) {
    CrashingFiles files(3);
    CheckpointFolder checkpoints("/run", 2, files);
    checkpoints.save(100, test::state_of(100));
    files.fill_up_after(room);
    try {
      checkpoints.save(200, test::state_of(200));
      ADD_FAILURE() << "saved into " << room << " bytes";
    } catch (const base::Error& error) {
      EXPECT_EQ(error.code(), base::ErrorCode::io);
      EXPECT_NE(std::string(error.what()).find("No space left"), std::string::npos) << error.what();
    }
    EXPECT_EQ(files.list("/run"), std::vector<std::string>{"step-00000100"}) << "what it had written makes room again";
    EXPECT_TRUE(holds(checkpoints.load_newest().value(), Saved{100, 0}));
  }
}

// Saves on and on, and tells each step once it is acknowledged.
[[noreturn]] void save_and_tell(const base::Path& folder, int pipe) {
  try {
    CheckpointFolder checkpoints(folder, 2);
    const auto newest = checkpoints.load_newest();
    for (int64_t step = newest ? newest->first + 1 : 1;; ++step) {
      checkpoints.save(step, test::state_of(step));
      if (::write(pipe, &step, sizeof(step)) != sizeof(step)) break;
    }
  } catch (const std::exception& problem) {
    base::warn(problem.what());
  }
  ::_exit(1);
}

// Starts one, kills it some time after `wait_for` acknowledged steps; the last acknowledged one, or 0.
int64_t kill_one(const base::Path& folder, int wait_for, std::chrono::microseconds delay) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(ends[0]);
    save_and_tell(folder, ends[1]);
  }
  ::close(ends[1]);
  int64_t step = 0, last = 0;
  for (int i = 0; i < wait_for && ::read(ends[0], &step, sizeof(step)) == sizeof(step); ++i) last = step;
  std::this_thread::sleep_for(delay);
  ::kill(child, SIGKILL);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status)) << "it ended by itself";
  while (::read(ends[0], &step, sizeof(step)) == sizeof(step)) last = step;
  ::close(ends[0]);
  return last;
}

TEST_F(CheckpointCrash, AProgramKilledAtFiftyMomentsHasWhatItAcknowledged) {
  const base::Path folder = std::filesystem::temp_directory_path() / ("cepe-killed-" + std::to_string(::getpid()));
  std::mt19937_64 random(5);
  int64_t acknowledged = 0;
  for (int i = 0; i < 50; ++i) {
    SCOPED_TRACE("kill " + std::to_string(i));
    const std::chrono::microseconds delay(random() % 6000);
    acknowledged = std::max(acknowledged, kill_one(folder, static_cast<int>(random() % 3), delay));
    const auto found = CheckpointFolder(folder, 2).load_newest();
    ASSERT_EQ(found.has_value() ? found->first >= acknowledged : acknowledged == 0, true);
    ASSERT_TRUE(!found || test::same(found->second, test::state_of(found->first)));
  }
  EXPECT_GT(acknowledged, 25);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace cepe::train
