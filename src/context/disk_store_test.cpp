#include "context/disk_store.h"

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
#include <thread>

#include "context/record_folder.h"
#include "expect_error.h"

namespace cepe::context {
namespace {

using base::Path;
using testing::HasSubstr;
using testing::IsEmpty;
namespace fs = std::filesystem;

constexpr int64_t plenty = int64_t{1} << 30;
constexpr RecordShape shape{RecordShape::Type::float32, 4, 8};

ChunkKey key(int number) { return key_of(std::vector<text::Token>{number}, {}); }

std::vector<std::byte> values(int number) { return std::vector<std::byte>(shape.payload_bytes(), std::byte(number)); }

class Disk : public testing::Test {
 protected:
  Path parent = fs::temp_directory_path() / ("cepe-disk-store-" + std::to_string(::getpid()));
  Path folder = parent / "chunks";
  void SetUp() override { fs::create_directories(parent); }
  void TearDown() override { fs::remove_all(parent); }

  static Path record(const Path& folder, int number) {
    const RecordName name(key(number));
    return folder / name.subfolder / name.file;
  }
  static void put(DiskStore& store, int number) {
    store.begin_request();
    store.write(key(number), shape, values(number));
  }
  static bool has(DiskStore& store, int number) {
    std::vector<std::byte> found(shape.payload_bytes());
    return store.read(key(number), shape, found) && found == values(number);
  }
  static void change_byte(const Path& path, std::streamoff place) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(place);
    const char old = static_cast<char>(file.get());
    file.seekp(place);
    file.put(static_cast<char>(old ^ 1));
  }
};

TEST_F(Disk, GivesBackWhatWasWrittenToAnyStoreOnTheFolder) {
  DiskStore writer(folder, plenty), reader(folder, plenty);
  EXPECT_FALSE(has(reader, 1));
  put(writer, 1);
  EXPECT_TRUE(has(writer, 1));
  EXPECT_TRUE(has(reader, 1));
  EXPECT_FALSE(has(reader, 2));
}

TEST_F(Disk, IsReadableForItsOwnerOnly) {
  DiskStore store(folder, plenty);
  put(store, 1);
  const auto mode = [](const Path& path) { return static_cast<int>(fs::status(path).permissions()) & 0777; };
  EXPECT_EQ(mode(folder), 0700);
  EXPECT_EQ(mode(record(folder, 1).parent_path()), 0700);
  EXPECT_EQ(mode(record(folder, 1)), 0600);
}

TEST_F(Disk, DropsARecordWithAnyByteChanged) {
  DiskStore store(folder, plenty);
  for (size_t place = 0; place < shape.file_bytes(); place += 5) {
    put(store, 1);
    change_byte(record(folder, 1), static_cast<std::streamoff>(place));
    testing::internal::CaptureStderr();
    EXPECT_FALSE(has(store, 1)) << "byte " << place;
    EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr(record(folder, 1).string()));
    EXPECT_FALSE(fs::exists(record(folder, 1)));
  }
}

TEST_F(Disk, DropsARecordOfAnotherLength) {
  DiskStore store(folder, plenty);
  for (const size_t size : {size_t{0}, size_t{50}, shape.file_bytes() - 1, shape.file_bytes() + 1}) {
    put(store, 1);
    fs::resize_file(record(folder, 1), size);
    EXPECT_FALSE(has(store, 1)) << size << " bytes";
    EXPECT_FALSE(fs::exists(record(folder, 1)));
  }
}

TEST_F(Disk, DropsTheRecordOfAnotherChunkUnderItsName) {
  DiskStore store(folder, plenty);
  put(store, 1);
  put(store, 2);
  fs::copy_file(record(folder, 2), record(folder, 1), fs::copy_options::overwrite_existing);
  EXPECT_FALSE(has(store, 1));
  EXPECT_TRUE(has(store, 2));
}

TEST_F(Disk, DropsWhatIsNoFileUnderTheNameOfARecord) {
  DiskStore store(folder, plenty);
  put(store, 1);
  const Path outside = parent / "outside";
  fs::rename(record(folder, 1), outside);
  fs::create_symlink(outside, record(folder, 1));
  EXPECT_FALSE(has(store, 1));
  EXPECT_FALSE(fs::exists(fs::symlink_status(record(folder, 1))));
  EXPECT_TRUE(fs::exists(outside));
  ASSERT_EQ(::mkfifo(record(folder, 1).c_str(), 0600), 0);
  EXPECT_FALSE(has(store, 1));
  put(store, 1);
  EXPECT_TRUE(has(store, 1));
}

TEST_F(Disk, EvictsWhatWasUsedLongestAgo) {
  const auto one = static_cast<int64_t>(shape.file_bytes());
  DiskStore store(folder, 4 * one);
  for (int number = 1; number <= 4; ++number) put(store, number);
  store.begin_request();
  EXPECT_TRUE(has(store, 1));  // now 2 is the oldest
  put(store, 5);
  EXPECT_FALSE(has(store, 2));
  EXPECT_TRUE(has(store, 1));
  EXPECT_TRUE(has(store, 5));
  EXPECT_LE(stored_records(folder).bytes, 4 * one);
}

TEST_F(Disk, StaysWithinItsLimitWhateverOthersWrite) {
  const auto one = static_cast<int64_t>(shape.file_bytes());
  DiskStore store(folder, 4 * one), other(folder, 4 * one);
  for (int number = 1; number <= 40; ++number) put(number % 2 ? store : other, number);
  EXPECT_LE(stored_records(folder).bytes, 4 * one);
  EXPECT_TRUE(has(store, 40));
}

TEST_F(Disk, KeepsTheBeginningOfARequestLargerThanItsLimit) {
  DiskStore store(folder, 4 * static_cast<int64_t>(shape.file_bytes()));
  store.begin_request();
  for (int number = 1; number <= 10; ++number) store.write(key(number), shape, values(number));
  for (int number = 1; number <= 10; ++number) EXPECT_EQ(has(store, number), number <= 4) << number;
}

TEST_F(Disk, IgnoresAndLaterRemovesWhatAKilledProcessLeft) {
  DiskStore store(folder, plenty);
  put(store, 1);
  const Path fresh = record(folder, 1).string() + ".0123456789abcdef";
  const Path old = record(folder, 1).string() + ".fedcba9876543210";
  std::ofstream(fresh) << "half a rec";
  std::ofstream(old) << "half a rec";
  fs::last_write_time(old, fs::file_time_type::clock::now() - std::chrono::hours(2));
  EXPECT_EQ(stored_records(folder).records, 1);
  DiskStore later(folder, plenty);
  EXPECT_TRUE(has(later, 1));
  put(later, 2);
  EXPECT_FALSE(fs::exists(old));
  EXPECT_TRUE(fs::exists(fresh));  // somebody may be writing it
}

TEST_F(Disk, WarnsOnceAboutAFolderThatCannotBeMade) {
  std::ofstream(folder) << "a file";
  testing::internal::CaptureStderr();
  DiskStore store(folder, plenty);
  put(store, 1);
  EXPECT_FALSE(has(store, 1));
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
  EXPECT_THAT(said, HasSubstr(folder.string()));
}

TEST_F(Disk, WillNotUseAFolderThatAnyoneMayWriteTo) {
  fs::create_directories(folder);
  fs::permissions(folder, fs::perms::all);
  testing::internal::CaptureStderr();
  DiskStore store(folder, plenty);
  put(store, 1);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("every user may write"));
  EXPECT_EQ(stored_records(folder).records, 0);
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
  DiskStore store(folder, plenty);
  put(store, 1);
  const RecordShape large{RecordShape::Type::bfloat16, 256, 64};
  const std::vector<std::byte> content(large.payload_bytes());
  testing::internal::CaptureStderr();
  {
    const FullDisk full(4096);
    store.write(key(2), large, content);
    store.write(key(3), large, content);
  }
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
  EXPECT_TRUE(has(store, 1));  // reading goes on
  EXPECT_EQ(list_records(folder).size(), 1u);
}

TEST_F(Disk, GoesOnAfterSomebodyRemovedTheFolder) {
  DiskStore store(folder, plenty);
  put(store, 1);
  fs::remove_all(folder);
  EXPECT_FALSE(has(store, 1));
  put(store, 1);
  EXPECT_TRUE(has(store, 1));
}

TEST_F(Disk, ManyWritersReadersAndOneWhoClearsNeverSeeAWrongRecord) {
  testing::internal::CaptureStderr();
  std::atomic<int> found = 0, wrong = 0;
  const auto work = [&](int seed) {
    DiskStore store(folder, plenty);
    for (int i = 0; i < 300; ++i) {
      const int number = (i * seed) % 5;
      std::vector<std::byte> read(shape.payload_bytes());
      store.write(key(number), shape, values(number));
      if (!store.read(key(number), shape, read)) continue;
      ++found;
      if (read != values(number)) ++wrong;
    }
  };
  std::vector<std::thread> workers;
  for (const int seed : {1, 2, 3}) workers.emplace_back(work, seed);
  for (int i = 0; i < 100; ++i) remove_records(folder);
  for (std::thread& worker : workers) worker.join();
  EXPECT_GT(found, 300);
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");  // nobody gave up
  for (const FoundRecord& record : list_records(folder)) EXPECT_FALSE(record.temporary);
}

TEST_F(Disk, ClearingRemovesItsOwnFilesOnly) {
  DiskStore store(folder, plenty);
  put(store, 1);
  put(store, 2);
  std::ofstream(record(folder, 1).string() + ".0123456789abcdef") << "half a rec";
  const Path outside = parent / "ab";
  fs::create_directories(outside);
  const std::string foreign_name(64, 'a');
  std::ofstream(outside / (foreign_name + ".states")) << "mine";
  fs::remove_all(folder / "aa");
  fs::create_directory_symlink(outside, folder / "aa");
  std::ofstream(folder / "notes.txt") << "mine";
  std::ofstream(record(folder, 2).parent_path() / "notes.txt") << "mine";

  const StoredRecords removed = remove_records(folder);
  EXPECT_EQ(removed.records, 2);
  EXPECT_EQ(removed.bytes, 2 * static_cast<int64_t>(shape.file_bytes()));
  EXPECT_THAT(list_records(folder), IsEmpty());
  EXPECT_FALSE(fs::exists(record(folder, 1).parent_path()));
  EXPECT_TRUE(fs::exists(outside / (foreign_name + ".states")));
  EXPECT_TRUE(fs::exists(folder / "notes.txt"));
  EXPECT_TRUE(fs::exists(record(folder, 2).parent_path() / "notes.txt"));
}

TEST_F(Disk, AFolderThatIsNotThereHoldsNothing) {
  EXPECT_EQ(stored_records(parent / "nowhere").records, 0);
  EXPECT_EQ(remove_records(parent / "nowhere").records, 0);
  std::ofstream(parent / "file") << "a file";
  test::expect_error(base::ErrorCode::io, (parent / "file").string(), [&] { stored_records(parent / "file"); });
}

TEST_F(Disk, RefusesANegativeLimit) {
  test::expect_error(base::ErrorCode::invalid_argument, "-1 bytes", [&] { DiskStore(folder, -1); });
}

}  // namespace
}  // namespace cepe::context
