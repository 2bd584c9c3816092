#include "context/disk_tier.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <sstream>
#include <thread>

#include "base/error.h"
#include "disk_records.h"
#include "expect_error.h"
#include "meddled_files.h"

namespace cepe::context {
namespace {

using base::Path;
using test::has;
using test::put;
using testing::HasSubstr;
namespace fs = std::filesystem;

constexpr int64_t plenty = int64_t{1} << 30;
constexpr int64_t one_record = 256;  // bytes of a record of small_shape

class Disk : public testing::Test {
 protected:
  Path parent = test::quick_folder() / ("cepe-disk-tier-" + std::to_string(::getpid()));
  Path folder = parent / "chunks";
  void SetUp() override { fs::create_directories(parent); }
  void TearDown() override { fs::remove_all(parent); }

  DiskTierOptions options(int64_t max_bytes = plenty, int64_t segment_bytes = 2000) const {
    return {folder, max_bytes, segment_bytes};
  }
  std::vector<Path> segments() const {
    std::vector<Path> found;
    for (const auto& entry : fs::directory_iterator(folder))
      if (is_segment_name(entry.path().filename().string())) found.push_back(entry.path());
    return found;
  }
  int64_t bytes_on_disk() const {
    int64_t bytes = 0;
    for (const Path& path : segments()) bytes += static_cast<int64_t>(fs::file_size(path));
    return bytes;
  }
};

TEST_F(Disk, GivesBackWhatWasWrittenToAnyTierOnTheFolder) {
  DiskTier writer(options()), reader(options());
  EXPECT_FALSE(has(reader, 1));
  EXPECT_TRUE(put(writer, {1, 2}));
  EXPECT_TRUE(has(writer, 1));
  EXPECT_TRUE(has(reader, 1));
  EXPECT_TRUE(has(reader, 2));
  EXPECT_FALSE(has(reader, 3));
}

TEST_F(Disk, GivesNothingUnderAnotherShape) {
  DiskTier tier(options());
  put(tier, {1});
  RecordShape other = test::small_shape;
  other.rows = 2;
  std::vector<std::byte> values(other.payload_bytes());
  EXPECT_FALSE(tier.read(test::record_key(1), other, values));
}

TEST_F(Disk, IsReadableForItsOwnerOnly) {
  DiskTier tier(options());
  put(tier, {1});
  const auto mode = [](const Path& path) { return static_cast<int>(fs::status(path).permissions()) & 0777; };
  EXPECT_EQ(mode(folder), 0700);
  int files = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    EXPECT_EQ(mode(entry.path()), 0600) << entry.path();
    ++files;
  }
  EXPECT_GE(files, 3);
}

TEST_F(Disk, FillsSegmentsOneAfterAnotherAndGoesOnInThoseOfEarlierProcesses) {
  for (int number = 0; number < 14; ++number) {
    DiskTier tier(options());
    EXPECT_TRUE(put(tier, {number}));
  }
  EXPECT_EQ(segments().size(), 2u);  // 7 of 256 bytes in 2000
  DiskTier one_writer(options()), other(options());
  put(one_writer, {20});
  put(other, {21});
  EXPECT_EQ(segments().size(), 4u);  // nobody appends to what another one holds
}

TEST_F(Disk, EvictsWhatWasUsedLongestAgo) {
  DiskTier tier(options(4 * one_record));
  for (int number = 1; number <= 4; ++number) put(tier, {number});
  EXPECT_TRUE(has(tier, 1));  // now 2 is the oldest
  EXPECT_TRUE(put(tier, {5}));
  EXPECT_FALSE(has(tier, 2));
  EXPECT_TRUE(has(tier, 1));
  EXPECT_TRUE(has(tier, 5));
  EXPECT_LE(bytes_on_disk(), 4 * one_record);
}

TEST_F(Disk, TimesOfUseOutliveTheProcess) {
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

TEST_F(Disk, TimesOfUseOfAClockThatWasAheadNeitherStopEvictionNorOutliveTheNextUse) {
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

TEST_F(Disk, StaysWithinItsLimitWhateverOthersWrite) {
  DiskTier tier(options(40 * one_record)), other(options(40 * one_record));
  for (int number = 1; number <= 400; ++number) {
    EXPECT_TRUE(put(number % 2 ? tier : other, {number}));
    if (number % 3 == 0) has(tier, number - 20);  // what stays is mixed with what goes
    ASSERT_LE(bytes_on_disk(), 42 * one_record) << number;
  }
  EXPECT_TRUE(has(tier, 400));
  EXPECT_GT(tier.usage().chunks, 20);
}

TEST_F(Disk, KeepsTheBeginningOfARequestLargerThanItsLimit) {
  DiskTier tier(options(4 * one_record));
  const int64_t start = wall_clock();
  for (int number = 1; number <= 10; number += 2) EXPECT_EQ(put(tier, {number, number + 1}, "", start), number <= 3);
  for (int number = 1; number <= 10; ++number) EXPECT_EQ(has(tier, number), number <= 4) << number;
}

TEST_F(Disk, WarnsOnceAboutAFolderThatCannotBeMade) {
  std::ofstream(folder) << "a file";
  testing::internal::CaptureStderr();
  DiskTier tier(options());
  EXPECT_FALSE(put(tier, {1}));
  EXPECT_FALSE(has(tier, 1));
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
  EXPECT_THAT(said, HasSubstr(folder.string()));
  test::expect_error(base::ErrorCode::io, folder.string(), [&] { tier.usage(); });
}

TEST_F(Disk, WillNotUseAFolderThatAnyoneMayWriteTo) {
  fs::create_directories(folder);
  fs::permissions(folder, fs::perms::all);
  testing::internal::CaptureStderr();
  DiskTier tier(options());
  EXPECT_FALSE(put(tier, {1}));
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("every user may write"));
  EXPECT_TRUE(fs::is_empty(folder));
}

TEST_F(Disk, FollowsNoLinkInsideTheFolderAndAnyLinkToIt) {
  const Path real = parent / "real";
  fs::create_directories(real);
  fs::create_directory_symlink(real, folder);
  {
    DiskTier tier(options());
    EXPECT_TRUE(put(tier, {1}));
    EXPECT_TRUE(has(tier, 1));
  }
  const Path segment = segments().at(0), outside = parent / "outside";
  fs::rename(segment, outside);
  fs::create_symlink(outside, segment);
  const auto size = fs::file_size(outside);
  testing::internal::CaptureStderr();
  DiskTier tier(options());
  EXPECT_FALSE(has(tier, 1));
  EXPECT_TRUE(put(tier, {1, 2}));
  EXPECT_TRUE(has(tier, 1));
  EXPECT_EQ(fs::file_size(outside), size);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr(segment.filename().string()));
}

TEST_F(Disk, ALinkInPlaceOfTheCatalogueIsNotFollowed) {
  fs::create_directories(folder);
  const Path outside = parent / "outside";
  std::ofstream(outside) << "";
  fs::create_symlink(outside, folder / Catalogue::file_name);
  testing::internal::CaptureStderr();
  DiskTier tier(options());
  EXPECT_FALSE(put(tier, {1}));
  EXPECT_EQ(fs::file_size(outside), 0u);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("not kept"));
}

// Files of this process may not grow beyond so many bytes: a disk that is full.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    rlimit limit = before_;
    limit.rlim_cur = bytes;
    handler_ = ::signal(SIGXFSZ, SIG_IGN);
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FullDisk() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    ::signal(SIGXFSZ, handler_);
  }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;

 private:
  rlimit before_{};
  void (*handler_)(int) = nullptr;
};

TEST_F(Disk, WarnsOnceWhenTheDiskIsFullAndLeavesNoHalfRecord) {
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

TEST_F(Disk, WhatKilledProcessesLeftGoesWithTheFirstRecordAndBeforeAnythingIsEvicted) {
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

// Nobody waits for a lock; the time is over at once.
class NoPatience {
 public:
  NoPatience() : system_(sqlite3_vfs_find(nullptr)), before_(system_->xSleep) {
    system_->xSleep = [](sqlite3_vfs*, int microseconds) { return microseconds; };
  }
  ~NoPatience() { system_->xSleep = before_; }
  NoPatience(const NoPatience&) = delete;
  NoPatience& operator=(const NoPatience&) = delete;

 private:
  sqlite3_vfs* system_;
  int (*before_)(sqlite3_vfs*, int);
};

TEST_F(Disk, CountsWhatItLeavesOutWhileAnotherProcessHoldsTheCatalogue) {
  const NoPatience none;
  DiskTier tier(options());
  put(tier, {1});
  testing::internal::CaptureStderr();
  {
    Database other(folder / Catalogue::file_name, nullptr);
    const Transaction held(other);
    EXPECT_FALSE(put(tier, {2, 3}));
  }
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("another process holds the catalogue"));
  EXPECT_EQ(tier.left_out(), 2);
  EXPECT_TRUE(put(tier, {2, 3}));
  EXPECT_EQ(tier.left_out(), 2);
}

TEST_F(Disk, IsClearedWithoutItsCatalogueWhereTheDiskHasNoFreeByte) {
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

TEST_F(Disk, CollectingOnADiskWithoutAFreeByteBeginsWithSegmentsOfWhichNothingStays) {
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

TEST_F(Disk, OnAFullDiskNothingGoesThatIsWithinTheLimit) {
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

TEST_F(Disk, GoesOnAfterSomebodyRemovedTheFolder) {
  DiskTier tier(options());
  put(tier, {1});
  fs::remove_all(folder);
  EXPECT_TRUE(put(tier, {2}));
  EXPECT_TRUE(has(tier, 2));
  EXPECT_FALSE(has(tier, 1));
  DiskTier other(options());
  EXPECT_TRUE(has(other, 2));
}

TEST_F(Disk, ManyWritersReadersOneWhoClearsAndOneWhoCollectsNeverSeeAWrongRecord) {
  testing::internal::CaptureStderr();
  std::atomic<int> found = 0, wrong = 0, refused = 0;
  std::atomic<bool> ended = false;
  const auto work = [&](int seed) {
    DiskTier tier(options());
    for (int i = 0; i < 100; ++i) {
      const int number = (i * seed) % 5;
      if (!put(tier, {number, number + 5})) ++refused;
      const test::Found result = test::find(tier, number);
      if (result == test::Found::right) ++found;
      if (result == test::Found::wrong) ++wrong;
    }
  };
  std::thread cleaner([&] {
    DiskTier tier(options());
    for (int i = 0; !ended; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      i % 3 ? (void)tier.collect() : (void)tier.clear();
    }
  });
  std::vector<std::thread> workers;
  for (const int seed : {1, 2, 3}) workers.emplace_back(work, seed);
  for (std::thread& worker : workers) worker.join();
  ended = true;
  cleaner.join();
  EXPECT_GT(found, 100);
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(refused, 0);
  // Nobody gave up, nothing was damaged; clearing removes segments before their records are forgotten.
  std::istringstream said(testing::internal::GetCapturedStderr());
  for (std::string line; std::getline(said, line);)
    EXPECT_NE(line.find("its segment is gone"), std::string::npos) << line;
}

TEST_F(Disk, OneTierServesManyThreads) {
  DiskTier tier(options());
  std::atomic<int> wrong = 0;
  const auto work = [&tier, &wrong](int seed) {
    for (int i = 0; i < 50; ++i) {
      if (!put(tier, {i * 4 + seed})) ++wrong;
      if (!has(tier, i * 4 + seed)) ++wrong;
    }
  };
  std::vector<std::thread> workers;
  for (const int seed : {0, 1, 2, 3}) workers.emplace_back(work, seed);
  for (std::thread& worker : workers) worker.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(tier.usage().chunks, 200);
}

TEST_F(Disk, CollectingCompactsWhatIsHalfDeadAndRemovesWhatNobodyKnows) {
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

TEST_F(Disk, VerifyingNamesAndDropsWhatIsDamaged) {
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

TEST_F(Disk, VerifyingTakesNothingForDamageThatOthersMoveOrClear) {
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

TEST_F(Disk, CompactingDropsTheRecordThatTheMediumHasLostAndSaysSo) {
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

TEST_F(Disk, ANewSegmentThatCannotBeWrittenToIsRemoved) {
  DiskTier tier(options());
  testing::internal::CaptureStderr();
  {
    const FullDisk full(100);
    EXPECT_FALSE(put(tier, {1}));
  }
  testing::internal::GetCapturedStderr();
  EXPECT_TRUE(segments().empty());
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

TEST_F(Disk, WhatCannotBeOpenedAtTheMomentIsPassedOverAndKept) {
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

TEST_F(Disk, LetsGoOfOpenSegmentsWhereNoMoreFilesMayBeOpen) {
  DiskTier tier(options());
  for (int number = 0; number < 14; ++number) put(tier, {number});  // 7 in each of two
  EXPECT_TRUE(has(tier, 0));
  const NoMoreFiles none;
  EXPECT_TRUE(has(tier, 13));
  EXPECT_TRUE(has(tier, 0));
}

TEST_F(Disk, TellsWhichDocumentsItHolds) {
  DiskTier tier(options());
  put(tier, {1, 2}, "a.txt");
  put(tier, {3}, "b.txt");
  put(tier, {4});
  const DiskUsage usage = tier.usage();
  ASSERT_EQ(usage.documents.size(), 3u);
  EXPECT_EQ(usage.documents[1].source, "a.txt");
  EXPECT_EQ(usage.documents[1].chunks, 2);
  EXPECT_EQ(usage.chunks, 4);
  EXPECT_GE(usage.file_bytes, usage.bytes);
}

TEST_F(Disk, RefusesANegativeLimit) {
  test::expect_error(base::ErrorCode::invalid_argument, "-1 bytes", [&] { DiskTier tier(options(-1)); });
}

}  // namespace
}  // namespace cepe::context
