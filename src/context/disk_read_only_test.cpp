// A folder that this user cannot write: a read-only mount, or somebody else's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <thread>

#include "base/error.h"
#include "disk_folder.h"
#include "expect_error.h"

namespace cepe::context {
namespace {

using base::ErrorCode;
using base::Path;
using test::has;
using test::put;
using testing::HasSubstr;
namespace fs = std::filesystem;

// While this lives the folder can be read only; root, whom permissions do not stop, is another user meanwhile.
class ReadOnly {
 public:
  explicit ReadOnly(Path folder, fs::perms of_files = fs::perms(0644)) : folder_(std::move(folder)) {
    for (const auto& entry : fs::directory_iterator(folder_)) fs::permissions(entry.path(), of_files);
    fs::permissions(folder_, fs::perms(0555));
    if (is_root_ && ::seteuid(65534) != 0) ADD_FAILURE() << "cannot become another user";
  }
  ~ReadOnly() {
    if (is_root_ && ::seteuid(0) != 0) ADD_FAILURE() << "cannot become root again";
    fs::permissions(folder_, fs::perms(0700));
    for (const auto& entry : fs::directory_iterator(folder_)) fs::permissions(entry.path(), fs::perms(0600));
  }
  ReadOnly(const ReadOnly&) = delete;
  ReadOnly& operator=(const ReadOnly&) = delete;

 private:
  Path folder_;
  bool is_root_ = ::geteuid() == 0;
};

class ReadOnlyDisk : public test::DiskFolder {
 protected:
  void SetUp() override {
    DiskFolder::SetUp();
    if (::geteuid() != 0) return;
    const bool is_other = ::seteuid(65534) == 0, is_reached = ::eaccess(folder.parent_path().c_str(), X_OK) == 0;
    if (is_other && ::seteuid(0) != 0) FAIL() << "cannot become root again";
    if (!is_other || !is_reached) GTEST_SKIP() << "this root cannot be another user who reaches " << folder;
  }
  void keep(const std::vector<int>& numbers) { EXPECT_TRUE(put(*std::make_unique<DiskTier>(options()), numbers)); }
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }
};

TEST_F(ReadOnlyDisk, IsReadAndThatNothingIsKeptIsSaidOnceWhenSomethingShouldBe) {
  keep({1, 2, 3});
  const std::vector<std::string> before = files();
  {
    const ReadOnly read_only(folder);
    testing::internal::CaptureStderr();
    DiskTier tier(options());
    for (const int number : {1, 2, 3}) EXPECT_TRUE(has(tier, number));
    EXPECT_FALSE(has(tier, 4));
    EXPECT_FALSE(tier.keeps());
    EXPECT_TRUE(tier.only_reads());
    tier.flush();
    EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
    testing::internal::CaptureStderr();
    for (const int number : {4, 5}) EXPECT_FALSE(put(tier, {number}));
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
    EXPECT_THAT(said, HasSubstr(folder.string() + ": encoded text is read from it but not kept: Permission denied"));
    EXPECT_TRUE(has(tier, 1));
    EXPECT_EQ(tier.left_out(), 0);
  }
  EXPECT_EQ(files(), before);
  EXPECT_TRUE(has(*std::make_unique<DiskTier>(options()), 3));
}

TEST_F(ReadOnlyDisk, IsListedAndVerifiedButNeitherCollectedNorCleared) {
  keep({1, 2, 3});
  const ReadOnly read_only(folder);
  DiskTier tier(options(0));
  EXPECT_EQ(tier.usage().chunks, 3);
  EXPECT_EQ(tier.verify().records, 3);
  test::expect_error(ErrorCode::io, "cannot be written (Permission denied): nothing is removed", [&] { tier.clear(); });
  test::expect_error(ErrorCode::io, "cannot be written (Permission denied): nothing is removed",
                     [&] { tier.collect(); });
  EXPECT_EQ(bytes_on_disk(), 3 * one_record);
  EXPECT_EQ(tier.verify().records, 3);
}

TEST_F(ReadOnlyDisk, WhatStandsOnlyInTheLogOfTheCatalogueIsReadToo) {
  const Path copy = parent / "copy";
  {
    DiskTier tier(options());
    put(tier, {1, 2, 3});
    fs::copy(folder, copy);  // while it is in use
  }
  ASSERT_GT(fs::file_size(copy / "catalogue.sqlite-wal"), 0u);
  fs::remove_all(folder);
  fs::rename(copy, folder);
  const ReadOnly read_only(folder);
  DiskTier tier(options());
  for (const int number : {1, 2, 3}) EXPECT_TRUE(has(tier, number));
}

TEST_F(ReadOnlyDisk, FollowsWhatItsOwnerAddsAndRemoves) {
  keep({1, 2});
  std::unique_ptr<DiskTier> tier;
  const auto soon_has = [&](int number) {
    const ReadOnly read_only(folder);
    if (!tier) tier = std::make_unique<DiskTier>(options());
    for (int attempt = 0; attempt < 1000 && !has(*tier, number); ++attempt)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return has(*tier, number);
  };
  EXPECT_TRUE(soon_has(1));
  keep({3});
  EXPECT_TRUE(soon_has(3));
  DiskTier(options()).clear();
  keep({4});
  testing::internal::CaptureStderr();
  {
    const ReadOnly read_only(folder);
    tier->flush();  // it had the segment open
    EXPECT_FALSE(has(*tier, 1));
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_TRUE(soon_has(4));
}

TEST_F(ReadOnlyDisk, WithoutACatalogueOrWithADamagedOneIsListedFromItsSegments) {
  for (const bool is_damaged : {false, true}) {
    fs::remove_all(folder);
    keep({1, 2, 3});
    const Path catalogue = folder / Catalogue::file_name;
    is_damaged ? (void)(std::ofstream(catalogue) << std::string(8192, 'x')) : (void)fs::remove(catalogue);
    const ReadOnly read_only(folder);
    testing::internal::CaptureStderr();
    DiskTier tier(options());
    for (const int number : {1, 2, 3}) EXPECT_TRUE(has(tier, number)) << is_damaged;
    EXPECT_EQ(tier.usage().chunks, 3);
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_EQ(said.find("its 3 records are listed from the segments") != std::string::npos, is_damaged) << said;
  }
}

TEST_F(ReadOnlyDisk, WhatIsDamagedIsNamedAndStays) {
  keep({1, 2, 3});
  std::fstream(segments().at(0), std::ios::in | std::ios::out | std::ios::binary).seekp(256 + 200) << "spoilt";
  const ReadOnly read_only(folder);
  for (int repeat = 0; repeat < 2; ++repeat) {
    testing::internal::CaptureStderr();
    EXPECT_EQ(DiskTier(options()).verify().damaged, 1);
    EXPECT_THAT(testing::internal::GetCapturedStderr(),
                HasSubstr("byte 256: its bytes contradict its checksum; its text is encoded again"));
  }
}

TEST_F(ReadOnlyDisk, WithFilesThatMayNotBeReadIsNotUsedAndSaysWhy) {
  keep({1});
  const ReadOnly read_only(folder, fs::perms(0000));
  testing::internal::CaptureStderr();
  DiskTier tier(options());
  EXPECT_FALSE(has(tier, 1));
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr("encoded text is neither read nor kept: " + (folder / Catalogue::file_name).string() +
                        ": cannot open: Permission denied"));
}

}  // namespace
}  // namespace cepe::context
