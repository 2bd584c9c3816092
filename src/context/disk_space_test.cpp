// The limit, what goes where it is reached, and a disk that is full.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <optional>

#include "base/error.h"
#include "disk_folder.h"
#include "expect_error.h"
#include "full_disk.h"
#include "meddled_files.h"

namespace cepe::context {
namespace {

using base::Path;
using test::FullDisk;
using test::has;
using test::put;
using testing::HasSubstr;
namespace fs = std::filesystem;

class DiskSpace : public test::DiskFolder {};

TEST_F(DiskSpace, EvictsWhatWasUsedLongestAgo) {
  DiskTier tier(options(4 * one_record));
  for (int number = 1; number <= 4; ++number) put(tier, {number});
  EXPECT_TRUE(has(tier, 1));  // now 2 is the oldest
  EXPECT_TRUE(put(tier, {5}));
  EXPECT_FALSE(has(tier, 2));
  EXPECT_TRUE(has(tier, 1));
  EXPECT_TRUE(has(tier, 5));
  EXPECT_LE(bytes_on_disk(), 4 * one_record);
}

TEST_F(DiskSpace, TimesOfUseOutliveTheProcess) {
  {
    DiskTier tier(options(4 * one_record));
    for (int number = 1; number <= 4; ++number) put(tier, {number});
    EXPECT_TRUE(has(tier, 1));
  }
  DiskTier later(options(4 * one_record));
  put(later, {5});
  EXPECT_TRUE(has(later, 1));
  EXPECT_FALSE(has(later, 2));
}

TEST_F(DiskSpace, TimesOfUseOfAClockThatWasAheadNeitherStopEvictionNorOutliveTheNextUse) {
  {
    DiskTier tier(options(8 * one_record));
    for (int number = 1; number <= 8; ++number) put(tier, {number});
    Database(folder / Catalogue::file_name, nullptr).run("UPDATE records SET used = used + 1000000000000000000");
  }
  DiskTier tier(options(8 * one_record));
  EXPECT_TRUE(has(tier, 1));  // back in the present
  EXPECT_TRUE(put(tier, {9, 10}));
  for (const int number : {1, 9, 10}) EXPECT_TRUE(has(tier, number)) << number;
  EXPECT_FALSE(has(tier, 2));
  Database(folder / Catalogue::file_name, nullptr).run("UPDATE records SET used = used + 1000000000000000000");
  DiskTier(options(0)).collect();
  EXPECT_EQ(tier.usage().chunks, 0);
}

TEST_F(DiskSpace, StaysWithinItsLimitWhateverOthersWrite) {
  DiskTier tier(options(40 * one_record)), other(options(40 * one_record));
  for (int number = 1; number <= 400; ++number) {
    EXPECT_TRUE(put(number % 2 ? tier : other, {number}));
    if (number % 3 == 0) has(tier, number - 20);  // what stays is mixed with what goes
    ASSERT_LE(bytes_on_disk(), 42 * one_record) << number;
  }
  EXPECT_TRUE(has(tier, 400));
  EXPECT_GT(tier.usage().chunks, 20);
}

TEST_F(DiskSpace, KeepsTheBeginningOfARequestLargerThanItsLimit) {
  DiskTier tier(options(4 * one_record));
  const int64_t start = wall_clock();
  for (int number = 1; number <= 10; number += 2) EXPECT_EQ(put(tier, {number, number + 1}, "", start), number <= 3);
  for (int number = 1; number <= 10; ++number) EXPECT_EQ(has(tier, number), number <= 4) << number;
}

TEST_F(DiskSpace, WarnsOnceWhenTheDiskIsFullAndLeavesNoHalfRecord) {
  DiskTier tier(options(plenty, plenty));
  put(tier, {1});
  const RecordShape large{RecordShape::Type::bfloat16, 256, 64};
  const std::vector<std::byte> content(large.payload_bytes());
  testing::internal::CaptureStderr();
  {
    const FullDisk full(4096);
    for (const int number : {2, 3}) {
      const DiskTier::Item item{test::record_key(number), large, content, ""};
      EXPECT_FALSE(tier.write({&item, 1}, 0));
    }
  }
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
  EXPECT_TRUE(has(tier, 1));  // reading goes on
  EXPECT_EQ(bytes_on_disk(), one_record);
}

TEST_F(DiskSpace, ANewSegmentThatCannotBeWrittenToIsRemoved) {
  DiskTier tier(options());
  testing::internal::CaptureStderr();
  {
    const FullDisk full(100);
    EXPECT_FALSE(put(tier, {1}));
  }
  testing::internal::GetCapturedStderr();
  EXPECT_TRUE(segments().empty());
}

TEST_F(DiskSpace, WhatKilledProcessesLeftGoesWithTheFirstRecordAndBeforeAnythingIsEvicted) {
  const DiskTier first(options());  // makes the catalogue
  const Path orphan = folder / "segment-0123456789abcdef.pages", later = folder / "segment-0123456789abcdee.pages";
  std::ofstream(orphan) << "half a record";
  DiskTier tier(options(4 * one_record));
  put(tier, {1});
  EXPECT_FALSE(fs::exists(orphan));
  std::ofstream(later) << "half a record";
  for (int number = 2; number <= 5; ++number) put(tier, {number});
  EXPECT_FALSE(fs::exists(later));
}

TEST_F(DiskSpace, CollectingCompactsWhatIsHalfDeadAndRemovesWhatNobodyKnows) {
  {
    DiskTier tier(options());
    for (int number = 0; number < 28; ++number) put(tier, {number});
  }
  const Path orphan = folder / "segment-0123456789abcdef.pages";
  std::ofstream(orphan) << "half a record";
  const Path earlier = folder / "ab" / (std::string(64, 'a') + ".states");
  fs::create_directories(earlier.parent_path());
  std::ofstream(earlier) << "of an earlier version";
  std::ofstream(folder / "notes.txt") << "mine";
  DiskTier tier(options(14 * one_record));
  has(tier, 0);
  const DiskTier::Collected collected = tier.collect();
  EXPECT_GE(collected.dropped_records, 14);
  EXPECT_FALSE(fs::exists(orphan));
  EXPECT_FALSE(fs::exists(earlier.parent_path()));
  EXPECT_TRUE(fs::exists(folder / "notes.txt"));
  EXPECT_LE(bytes_on_disk(), 14 * one_record);
  EXPECT_TRUE(has(tier, 0));
  EXPECT_TRUE(has(tier, 27));
  EXPECT_EQ(tier.verify().damaged, 0);
}

TEST_F(DiskSpace, CollectingCountsWhatItDidAndNotWhatOthersWroteMeanwhile) {
  {
    DiskTier tier(options());
    for (int number = 0; number < 14; ++number) put(tier, {number});  // 7 in each of 2
    for (int number = 0; number < 7; ++number) put(tier, {number});   // now nothing lives in the first
    for (int number = 7; number < 12; ++number) put(tier, {number});  // and little in the second
  }
  DiskTier other(options());
  test::MeddledFiles files;
  int next = 100;
  files.after_remove = [&] {
    for (; next < 130; ++next) put(other, {next});
  };
  DiskTier tier(options(), files);
  const DiskTier::Collected collected = tier.collect();
  EXPECT_EQ(collected.dropped_records, 0);
  EXPECT_EQ(collected.removed_files, 2);
  EXPECT_EQ(collected.freed_bytes, 12 * one_record);
}

TEST_F(DiskSpace, CollectingOnADiskWithoutAFreeByteBeginsWithSegmentsOfWhichNothingStays) {
  for (const bool fills_up_under_it : {false, true}) {
    fs::remove_all(folder);
    for (int number = 0; number < 28; ++number)
      put(*std::make_unique<DiskTier>(options()), {number});  // 7 in each of 4
    std::optional<FullDisk> full;
    test::MeddledFiles files;
    files.after_remove = [&] { full.reset(); };
    testing::internal::CaptureStderr();
    if (!fills_up_under_it) full.emplace(1000);
    DiskTier tier(options(14 * one_record), files);
    if (fills_up_under_it) full.emplace(1000);
    const DiskTier::Collected collected = tier.collect();
    testing::internal::GetCapturedStderr();
    EXPECT_EQ(collected.dropped_records, 14);
    EXPECT_EQ(collected.removed_files, 2);
    EXPECT_EQ(collected.freed_bytes, 14 * one_record);
    EXPECT_LE(bytes_on_disk(), 14 * one_record);
    DiskTier later(options());
    for (int number = 0; number < 28; ++number) EXPECT_EQ(has(later, number), number >= 14) << number;
    EXPECT_EQ(later.verify().damaged, 0);
  }
}

TEST_F(DiskSpace, OnAFullDiskNothingGoesThatIsWithinTheLimit) {
  for (int number = 0; number < 28; ++number) put(*std::make_unique<DiskTier>(options()), {number});
  testing::internal::CaptureStderr();
  {
    const FullDisk full(1000);
    DiskTier tier(options(28 * one_record));
    test::expect_error(base::ErrorCode::io, "cannot be used", [&] { tier.collect(); });
  }
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr("`cepe store gc` with a smaller --cache-size makes room"));
  DiskTier later(options());
  for (int number = 0; number < 28; ++number) EXPECT_TRUE(has(later, number)) << number;
}

// The file that SQLite's connections share takes 32 KiB.
TEST_F(DiskSpace, WhatAFullDiskHoldsIsReadByAProcessThatFindsItFull) {
  put(*std::make_unique<DiskTier>(options()), {1, 2, 3});
  testing::internal::CaptureStderr();
  {
    const FullDisk full(32000);
    DiskTier tier(options());
    for (const int number : {1, 2, 3}) EXPECT_TRUE(has(tier, number)) << number;
    EXPECT_FALSE(has(tier, 4));
    EXPECT_EQ(tier.usage().chunks, 3);
    tier.flush();
    EXPECT_FALSE(tier.keeps());
    EXPECT_TRUE(tier.only_reads());
    EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
    testing::internal::CaptureStderr();
    for (const int number : {4, 5}) EXPECT_FALSE(put(tier, {number}));
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
    EXPECT_THAT(said, HasSubstr("encoded text is read from it but not kept: disk I/O error; where the disk is full"));
    test::expect_error(base::ErrorCode::io, "`cepe store clear` most): nothing is removed", [&] { tier.collect(); });
    EXPECT_TRUE(has(tier, 1));
    testing::internal::CaptureStderr();
    EXPECT_EQ(tier.clear().chunks, 3);
  }
  testing::internal::GetCapturedStderr();
  DiskTier later(options());
  EXPECT_TRUE(put(later, {4}));
  EXPECT_TRUE(has(later, 4));
}

TEST_F(DiskSpace, OnAFullDiskWhereEachFileHoldsSomethingThatStaysCollectingSaysHowManyBytesMustBeFree) {
  for (int number = 0; number < 28; ++number) put(*std::make_unique<DiskTier>(options(plenty, plenty)), {number});
  ASSERT_EQ(segments().size(), 1u);
  testing::internal::CaptureStderr();
  {
    const FullDisk full(1000);
    DiskTier tier(options(16 * one_record, plenty));
    test::expect_error(base::ErrorCode::io, "of one, 3.75 KiB must be free", [&] { tier.collect(); });  // 15 records
  }
  testing::internal::GetCapturedStderr();
  DiskTier later(options());
  for (int number = 0; number < 28; ++number) EXPECT_TRUE(has(later, number)) << number;
}

TEST_F(DiskSpace, WithoutRoomToWriteAFileAnewCollectingSaysHowManyBytesItTakesAndLosesNothingThatStays) {
  for (int number = 0; number < 28; ++number) put(*std::make_unique<DiskTier>(options(plenty, plenty)), {number});
  const Path segment = segments().at(0);
  test::MeddledFiles files;
  size_t room = 8 * one_record;
  files.before_append = [&](size_t bytes) {
    if (bytes > room) throw base::Error(base::ErrorCode::io, "No space left on device");
    room -= bytes;
  };
  {
    DiskTier tier(options(16 * one_record, plenty), files);
    test::expect_error(base::ErrorCode::io,
                       "No space left on device; of " + segment.filename().string() + ", 3.75 KiB must be free",
                       [&] { tier.collect(); });
  }
  EXPECT_EQ(segments(), std::vector<Path>{segment});
  DiskTier later(options(plenty, plenty));
  for (int number = 0; number < 28; ++number) EXPECT_EQ(has(later, number), number >= 13) << number;
}

TEST_F(DiskSpace, AFigureOfADamagedCatalogueIsNoSizeToAllocateWhenFilesAreCompacted) {
  {
    DiskTier tier(options());
    put(tier, {1, 2, 3, 4, 5, 6});
    Database catalogue(folder / Catalogue::file_name, nullptr);
    catalogue.run("DELETE FROM records WHERE offset < 1024");
    catalogue.run("UPDATE records SET rows = 1 << 44 WHERE offset = 1024");
  }
  DiskTier tier(options());
  testing::internal::CaptureStderr();
  EXPECT_EQ(tier.collect().dropped_records, 1);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("its place in the catalogue is impossible"));
  EXPECT_TRUE(has(tier, 6));
}

TEST_F(DiskSpace, IsClearedWithoutItsCatalogueWhereTheDiskHasNoFreeByte) {
  {
    DiskTier tier(options());
    put(tier, {1, 2, 3});
  }
  testing::internal::CaptureStderr();
  {
    const FullDisk full(1000);
    DiskTier tier(options());
    test::expect_error(base::ErrorCode::io, "cannot be used", [&] { tier.collect(); });
    EXPECT_EQ(tier.clear().chunks, 3);
  }
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("`cepe store clear` most"));
  EXPECT_TRUE(segments().empty());
  DiskTier tier(options());
  EXPECT_TRUE(put(tier, {4}));
  EXPECT_TRUE(has(tier, 4));
}

TEST_F(DiskSpace, RefusesANegativeLimit) {
  test::expect_error(base::ErrorCode::invalid_argument, "-1 bytes", [&] { DiskTier tier(options(-1)); });
}

}  // namespace
}  // namespace cepe::context
