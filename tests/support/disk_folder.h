// A folder of encoded text for tests of the disk tier, gone with the test.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "disk_records.h"

namespace cepe::test {

class DiskFolder : public testing::Test {
 protected:
  static constexpr int64_t plenty = int64_t{1} << 30;
  static constexpr int64_t one_record = 256;  // bytes of a record of small_shape

  base::Path parent = quick_folder() / ("cepe-disk-tier-" + std::to_string(::getpid()));
  base::Path folder = parent / "chunks";
  void SetUp() override { std::filesystem::create_directories(parent); }
  void TearDown() override { std::filesystem::remove_all(parent); }

  context::DiskTierOptions options(int64_t max_bytes = plenty, int64_t segment_bytes = 2000) const {
    return {folder, max_bytes, segment_bytes};
  }
  std::vector<base::Path> segments() const {
    std::vector<base::Path> found;
    for (const auto& entry : std::filesystem::directory_iterator(folder))
      if (context::is_segment_name(entry.path().filename().string())) found.push_back(entry.path());
    return found;
  }
  int64_t bytes_on_disk() const {
    int64_t bytes = 0;
    for (const base::Path& path : segments()) bytes += static_cast<int64_t>(std::filesystem::file_size(path));
    return bytes;
  }
};

}  // namespace cepe::test
