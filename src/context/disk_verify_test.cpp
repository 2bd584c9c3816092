// What is damaged is told from what others moved, and from what cannot be read at the moment.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "base/error.h"
#include "disk_folder.h"
#include "meddled_files.h"

namespace cepe::context {
namespace {

using base::Path;
using test::has;
using test::put;
using testing::HasSubstr;
namespace fs = std::filesystem;

class DiskVerify : public test::DiskFolder {};

TEST_F(DiskVerify, VerifyingNamesAndDropsWhatIsDamaged) {
  DiskTier tier(options());
  put(tier, {1, 2, 3});
  std::fstream file(segments().at(0), std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(256 + 200);
  file << "spoilt";
  file.close();
  testing::internal::CaptureStderr();
  const DiskTier::Verified verified = tier.verify();
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("byte 256: its bytes contradict its checksum"));
  EXPECT_EQ(verified.records, 3);
  EXPECT_EQ(verified.damaged, 1);
  EXPECT_EQ(tier.verify().damaged, 0);
  EXPECT_EQ(tier.usage().chunks, 2);
}

TEST_F(DiskVerify, AFileThatIsCutShortIsOneLine) {
  DiskTier tier(options());
  put(tier, {1, 2, 3, 4, 5, 6, 7});
  fs::resize_file(segments().at(0), 2 * one_record + 100);
  testing::internal::CaptureStderr();
  EXPECT_EQ(tier.verify().damaged, 5);
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
  EXPECT_THAT(said, HasSubstr(", byte 512: ends too early; dropped, with 4 more chunks of this file"));
}

TEST_F(DiskVerify, ReadingAFileThatIsCutShortOrGoneIsOneLine) {
  for (const bool is_gone : {false, true}) {
    fs::remove_all(folder);
    put(*std::make_unique<DiskTier>(options()), {1, 2, 3, 4, 5, 6, 7});
    put(*std::make_unique<DiskTier>(options()), {8, 9});  // in another file
    Path cut = segments().at(0);
    if (fs::file_size(cut) < 7 * one_record) cut = segments().at(1);
    if (is_gone) fs::remove(cut);
    if (!is_gone) fs::resize_file(cut, 2 * one_record + 100);
    testing::internal::CaptureStderr();
    DiskTier later(options());
    for (int number = 9; number >= 1; --number) EXPECT_EQ(has(later, number), number > 7 || (!is_gone && number < 3));
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
    EXPECT_THAT(said, HasSubstr(is_gone ? "its segment is gone; dropped, with 6 more chunks of this file"
                                        : ", byte 1536: ends too early; dropped, with 4 more chunks of this file"));
    EXPECT_EQ(later.usage().chunks, is_gone ? 2 : 4);
    EXPECT_EQ(later.verify().damaged, 0);
  }
}

TEST_F(DiskVerify, ReadingManyDamagedChunksOfAFileIsOneLineThatSaysHowToFindTheOthers) {
  DiskTier tier(options());
  put(tier, {1, 2, 3, 4});
  std::fstream file(segments().at(0), std::ios::in | std::ios::out | std::ios::binary);
  for (int64_t record = 0; record < 3; ++record) {
    file.seekp(record * one_record + 200);
    file << "spoilt";
  }
  file.close();
  testing::internal::CaptureStderr();
  for (int number = 1; number <= 4; ++number) EXPECT_EQ(has(tier, number), number == 4);
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
  EXPECT_THAT(said, HasSubstr("byte 0: its bytes contradict its checksum; dropped, its text is encoded again; "
                              "`cepe store verify` looks at the rest of this file"));
}

TEST_F(DiskVerify, VerifyingTakesNothingForDamageThatOthersMoveOrClear) {
  {
    DiskTier tier(options());
    put(tier, {1, 2, 3, 4, 5, 6, 7});
    put(tier, {1, 2, 3, 4});  // now the first segment is half dead
  }
  DiskTier other(options());
  test::MeddledFiles files;
  DiskTier tier(options(), files);
  testing::internal::CaptureStderr();
  files.before_open = [&] { EXPECT_GT(other.collect().freed_bytes, 0); };
  const DiskTier::Verified moved = tier.verify();
  EXPECT_EQ(moved.records, 7);
  EXPECT_EQ(moved.damaged, 0);
  other.collect();
  DiskTier later(options(), files);
  files.before_open = [&] { EXPECT_EQ(other.clear().chunks, 7); };
  const DiskTier::Verified cleared = later.verify();
  EXPECT_EQ(cleared.records, 0);
  EXPECT_EQ(cleared.damaged, 0);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST_F(DiskVerify, CompactingDropsTheRecordThatTheMediumHasLostAndSaysSo) {
  {
    DiskTier tier(options());
    put(tier, {1, 2, 3, 4, 5, 6, 7});
    put(tier, {1, 2, 3, 4});  // now the first segment is half dead
  }
  test::MeddledFiles files;
  files.before_read = [](int64_t place, size_t bytes) {
    if (place <= 5 * one_record && 5 * one_record < place + static_cast<int64_t>(bytes))
      throw base::Error(base::ErrorCode::corrupt, "cannot read: Input/output error");
  };
  testing::internal::CaptureStderr();
  DiskTier tier(options(), files);
  EXPECT_EQ(tier.collect().dropped_records, 1);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("byte 1280: cannot read: Input/output error; dropped"));
  for (int number = 1; number <= 7; ++number) EXPECT_EQ(has(tier, number), number != 6) << number;
}

// No further file can be opened, however many are.
class NoMoreFiles {
 public:
  NoMoreFiles() {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    const int next = ::dup(STDERR_FILENO);  // the lowest number that is free
    ::close(next);
    rlimit limit = before_;
    limit.rlim_cur = static_cast<rlim_t>(next);
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
  ~NoMoreFiles() { ::setrlimit(RLIMIT_NOFILE, &before_); }
  NoMoreFiles(const NoMoreFiles&) = delete;
  NoMoreFiles& operator=(const NoMoreFiles&) = delete;

 private:
  rlimit before_{};
};

TEST_F(DiskVerify, WhatCannotBeOpenedAtTheMomentIsPassedOverAndKept) {
  DiskTier tier(options());
  put(tier, {1, 2, 3});
  testing::internal::CaptureStderr();
  {
    const NoMoreFiles none;
    EXPECT_FALSE(has(tier, 1));
    const DiskTier::Verified verified = tier.verify();
    EXPECT_EQ(verified.damaged, 0);
    EXPECT_EQ(verified.unreadable, 3);
  }
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
  EXPECT_THAT(said, HasSubstr("Too many open files"));
  for (int number = 1; number <= 3; ++number) EXPECT_TRUE(has(tier, number)) << number;
}

TEST_F(DiskVerify, LetsGoOfOpenSegmentsWhereNoMoreFilesMayBeOpen) {
  DiskTier tier(options());
  for (int number = 0; number < 14; ++number) put(tier, {number});  // 7 in each of two
  EXPECT_TRUE(has(tier, 0));
  const NoMoreFiles none;
  EXPECT_TRUE(has(tier, 13));
  EXPECT_TRUE(has(tier, 0));
}

}  // namespace
}  // namespace cepe::context
