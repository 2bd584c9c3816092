// What is written is read, by whoever shares the folder, and by nobody else.
#include "context/disk_tier.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <functional>
#include <sstream>
#include <thread>

#include "base/error.h"
#include "disk_folder.h"
#include "expect_error.h"
#include "meddled_files.h"

namespace cepe::context {
namespace {

using base::Path;
using test::has;
using test::put;
using testing::HasSubstr;
namespace fs = std::filesystem;

class Disk : public test::DiskFolder {};

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

// The values where they stand in the file, or a copy of them; 64 bytes is what the widest loads want.
void expect_mapped(const base::FileLayer::Content& found, int number) {
  EXPECT_EQ(std::vector<std::byte>(found.bytes.begin(), found.bytes.end()), test::record_values(number)) << number;
  EXPECT_EQ(reinterpret_cast<uintptr_t>(found.bytes.data()) % 64, 0u) << number;
}

TEST_F(Disk, MapsWhatStandsInTheFilesAsLongAsSomebodyReadsIt) {
  DiskTier writer(options()), reader(options());
  put(writer, {1, 2});
  const auto map = [&](int number) { return reader.map(test::record_key(number), test::small_shape); };
  const base::FileLayer::Content first = map(1);
  expect_mapped(first, 1);
  put(writer, {3});
  const base::FileLayer::Content third = map(3);  // of a file that has grown since it was mapped
  EXPECT_EQ(segments().size(), 1u);
  RecordShape other = test::small_shape;
  other.rows = 2;
  EXPECT_TRUE(reader.map(test::record_key(1), other).bytes.empty());
  EXPECT_TRUE(map(9).bytes.empty());
  reader.flush();
  writer.clear();
  EXPECT_TRUE(segments().empty());
  EXPECT_TRUE(map(2).bytes.empty());
  expect_mapped(first, 1);
  expect_mapped(third, 3);
}

TEST_F(Disk, CopiesWhereNothingCanBeMapped) {
  test::MeddledFiles files;
  DiskTier tier(options(), files);
  put(tier, {1, 2});
  expect_mapped(tier.map(test::record_key(1), test::small_shape), 1);
  expect_mapped(tier.map(test::record_key(2), test::small_shape), 2);
}

TEST_F(Disk, DropsWhatIsDamagedInsteadOfMappingIt) {
  DiskTier tier(options());
  put(tier, {1, 2, 3});
  std::fstream file(segments().front(), std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(one_record + 130).put('\x55').flush();
  fs::resize_file(segments().front(), 3 * one_record - 100);
  testing::internal::CaptureStderr();
  for (const int number : {2, 3}) EXPECT_TRUE(tier.map(test::record_key(number), test::small_shape).bytes.empty());
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("dropped"));
  EXPECT_EQ(tier.usage().chunks, 1);
  expect_mapped(tier.map(test::record_key(1), test::small_shape), 1);
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

// Others get ahead of whoever begins to read, so many times as `left` says.
class OthersAhead {
 public:
  inline static int left = 0;

  OthersAhead() {
    system_ = sqlite3_vfs_find(nullptr);
    open_ = system_->xOpen;
    system_->xOpen = [](sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags, int* given) {
      const int code = open_(vfs, name, file, flags, given);
      if (code != SQLITE_OK || (flags & SQLITE_OPEN_MAIN_DB) == 0) return code;
      lock_ = file->pMethods->xShmLock;
      methods_ = *file->pMethods;
      methods_.xShmLock = [](sqlite3_file* same, int offset, int count, int how) {
        const bool reads = how == (SQLITE_SHM_LOCK | SQLITE_SHM_SHARED);
        return reads && left > 0 ? (--left, SQLITE_PROTOCOL) : lock_(same, offset, count, how);
      };
      file->pMethods = &methods_;
      return code;
    };
  }
  ~OthersAhead() { system_->xOpen = open_; }
  OthersAhead(const OthersAhead&) = delete;
  OthersAhead& operator=(const OthersAhead&) = delete;

 private:
  inline static sqlite3_vfs* system_;
  inline static decltype(sqlite3_vfs::xOpen) open_;
  inline static decltype(sqlite3_io_methods::xShmLock) lock_;
  inline static sqlite3_io_methods methods_;
};

TEST_F(Disk, TimesOfUseAreNotedOnceNobodyElseHoldsTheCatalogueAndKeepNobodyWaiting) {
  DiskTier tier(options());
  put(tier, {1});
  const auto used = [&] { return tier.usage().documents.at(0).used; };
  const int64_t before = used();
  EXPECT_TRUE(has(tier, 1));
  testing::internal::CaptureStderr();
  {
    Database other(folder / Catalogue::file_name, nullptr);
    const Transaction held(other);
    const auto start = std::chrono::steady_clock::now();
    tier.flush();
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
    EXPECT_EQ(used(), before);
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  tier.flush();
  EXPECT_GT(used(), before);
}

TEST_F(Disk, AReaderThatOthersGetAheadOfTriesAgain) {
  const OthersAhead others;
  testing::internal::CaptureStderr();
  {
    DiskTier tier(options());
    const auto has_again = [&] {
      DiskTier again(options());
      return has(again, 1);
    };
    for (const auto& action :
         std::vector<std::function<bool()>>{[&] { return put(tier, {1}); }, [&] { return has(tier, 1); }, has_again,
                                            [&] { return tier.usage().chunks == 1; }, [&] { return put(tier, {2}); }}) {
      OthersAhead::left = 3;
      EXPECT_TRUE(action());
      EXPECT_EQ(OthersAhead::left, 0);
    }
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_TRUE(DatabaseError(SQLITE_PROTOCOL, "").is_busy()) << "the next time it may be otherwise";
}

TEST_F(Disk, ReadsOnAfterSomebodyRemovedTheCatalogueAndOthersMadeItAnew) {
  DiskTier tier(options());
  put(tier, {1, 2});
  fs::remove(folder / Catalogue::file_name);
  testing::internal::CaptureStderr();
  DiskTier other(options());
  put(other, {1, 2, 3});
  EXPECT_TRUE(has(tier, 3));
  other.clear();
  EXPECT_FALSE(has(tier, 1)) << "its old catalogue says where it was";
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST_F(Disk, RemovesNoSegmentByACatalogueThatSomebodyRemovedMeanwhile) {
  {
    DiskTier tier(options());
    for (int number = 0; number < 14; ++number) put(tier, {number});  // 7 in each of 2
    for (int number = 0; number < 5; ++number) put(tier, {number});   // now most of the first is dead
  }
  test::MeddledFiles files;
  DiskTier tier(options(), files);
  files.before_open = [&] {  // what is there is looked at
    fs::remove(folder / Catalogue::file_name);
    DiskTier other(options());
    for (int number = 20; number < 34; ++number) put(other, {number});
  };
  testing::internal::CaptureStderr();
  tier.collect();
  testing::internal::GetCapturedStderr();
  DiskTier later(options());
  for (int number = 0; number < 34; ++number) EXPECT_EQ(has(later, number), number < 14 || number >= 20) << number;
  EXPECT_EQ(later.verify().damaged, 0);
}

TEST_F(Disk, WhatOthersRemovedTakesUpTheDiskNoLongerThanARequest) {
  put(*std::make_unique<DiskTier>(options()), {1});
  DiskTier tier(options());
  EXPECT_TRUE(has(tier, 1));
  DiskTier(options()).clear();
  tier.flush();
  for (const auto& entry : fs::directory_iterator("/proc/self/fd")) {
    std::error_code none;  // the one that lists them
    const std::string file = fs::read_symlink(entry.path(), none).string();
    EXPECT_FALSE(file.find("segment-") != std::string::npos && file.ends_with(" (deleted)")) << file;
  }
}

TEST_F(Disk, AFolderThatSomebodyRemovedIsNotMadeAnewForTimesOfUse) {
  {
    DiskTier tier(options());
    put(tier, {1});
    EXPECT_TRUE(has(tier, 1));
    fs::remove_all(folder);
    tier.flush();
  }
  EXPECT_FALSE(fs::exists(folder));
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

}  // namespace
}  // namespace cepe::context
