// What was acknowledged is read at once, whatever the same tier is writing meanwhile.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <thread>
#include <utility>

#include "disk_folder.h"
#include "meddled_files.h"

namespace cepe::context {
namespace {

using Clock = std::chrono::steady_clock;
using test::has;
using test::put;

constexpr std::chrono::milliseconds slow{2000}, at_once{500};

// A medium on which a sync takes long, once `is_slow`.
struct DiskThreads : test::DiskFolder {
  test::MeddledFiles files;
  std::promise<void> begun;
  bool is_slow = false;

  void SetUp() override {
    test::DiskFolder::SetUp();
    files.before_sync = [this] {
      if (!std::exchange(is_slow, false)) return;
      begun.set_value();
      std::this_thread::sleep_for(slow);
    };
  }
  // What `read` does takes no time while `write` takes long.
  void expect_at_once(const std::function<void()>& write, const std::function<void()>& read) {
    is_slow = true;
    std::future<void> written = std::async(std::launch::async, write);
    begun.get_future().wait();
    const auto start = Clock::now();
    read();
    EXPECT_LT(Clock::now() - start, at_once);
    EXPECT_EQ(written.wait_for(std::chrono::seconds(0)), std::future_status::timeout) << "it was not slow";
    written.get();
  }
};

TEST_F(DiskThreads, ReadWhatWasAcknowledgedWhileABatchIsWritten) {
  DiskTier tier(options(), files);
  put(tier, {1, 2});
  expect_at_once(
      [&] {
        EXPECT_TRUE(put(tier, {3, 4}));
      },
      [&] {
        EXPECT_TRUE(has(tier, 1));
        EXPECT_FALSE(tier.map(test::record_key(2), test::small_shape).bytes.empty());
        EXPECT_FALSE(has(tier, 3)) << "it is not acknowledged";
        EXPECT_TRUE(tier.keeps());
        EXPECT_FALSE(tier.only_reads());
        EXPECT_EQ(tier.left_out(), 0);
      });
  EXPECT_TRUE(has(tier, 3));
}

TEST_F(DiskThreads, ReadWhatIsCompactedMeanwhile) {
  DiskTier tier(options(), files);
  for (int number = 0; number < 7; ++number) put(tier, {number});
  for (int number = 0; number < 5; ++number) put(tier, {number});  // most of the first segment is dead
  expect_at_once([&] { EXPECT_EQ(tier.collect().removed_files, 1); },
                 [&] {
                   for (int number = 0; number < 7; ++number) EXPECT_TRUE(has(tier, number)) << number;
                 });
  for (int number = 0; number < 7; ++number) EXPECT_TRUE(has(tier, number)) << number;
}

TEST_F(DiskThreads, ReadWhileAnotherProcessKeepsAWriterWaiting) {
  DiskTier tier(options(), files);
  put(tier, {1});
  std::future<bool> written;
  {
    Database other(folder / Catalogue::file_name, nullptr);
    const Transaction held(other);
    written = std::async(std::launch::async, [&] { return put(tier, {2}); });
    std::this_thread::sleep_for(at_once / 2);
    const auto start = Clock::now();
    EXPECT_TRUE(has(tier, 1));
    EXPECT_LT(Clock::now() - start, at_once);
    EXPECT_EQ(written.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  }
  EXPECT_TRUE(written.get());
}

// Of the tiers of a folder, some on threads of their own and some shared.
TEST_F(DiskThreads, NeverReadAWrongRecordWhereOthersWriteClearAndCollect) {
  testing::internal::CaptureStderr();
  DiskTier tier(options());
  std::atomic<int> found = 0, wrong = 0;
  std::atomic<bool> ended = false;
  const auto in_a_thread = [](const std::function<void()>& action) { return std::async(std::launch::async, action); };
  const auto writer = in_a_thread([&] {
    for (int i = 0; i < 300; ++i) put(tier, {i % 5, i % 5 + 5});
    ended = true;
  });
  const auto cleaner = in_a_thread([&] {
    for (int i = 0; !ended; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      i % 10 == 9 ? (void)tier.clear() : (void)tier.collect();
      tier.flush();
    }
  });
  const auto read = [&] {
    for (int i = 0; !ended; ++i) {
      const test::Found result = test::find(tier, i % 10);
      found += result == test::Found::right;
      wrong += result == test::Found::wrong;
    }
  };
  { const auto one = in_a_thread(read), another = in_a_thread(read); }
  cleaner.wait();
  testing::internal::GetCapturedStderr();
  EXPECT_GT(found, 100);
  EXPECT_EQ(wrong, 0);
  EXPECT_TRUE(put(tier, {1}));
  EXPECT_EQ(tier.verify().damaged, 0);
}

}  // namespace
}  // namespace cepe::context
