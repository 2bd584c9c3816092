#include "base/memory.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "temporary_folder.h"

namespace cepe::base {
namespace {

TEST(Memory, OfAControlGroupIsTakenByWhatItCannotGiveBack) {
  const test::TemporaryFolder folder;
  const std::string root = folder.path().string(), group = root + "/sys/fs/cgroup";
  std::filesystem::create_directories(root + "/proc");
  std::filesystem::create_directories(group);
  const auto write = [](const std::string& path, const std::string& text) { std::ofstream(path) << text; };
  write(root + "/proc/meminfo", "MemTotal:       9000 kB\nMemAvailable:    8000 kB\n");
  EXPECT_EQ(available_bytes(root), 8000 * 1024);
  write(group + "/memory.max", "max\n");
  EXPECT_EQ(available_bytes(root), 8000 * 1024);
  write(group + "/memory.max", "1000000\n");
  write(group + "/memory.current", "990000\n");
  EXPECT_EQ(available_bytes(root), 10000);
  write(group + "/memory.stat", "anon 90000\nfile 900000\ninactive_file 500000\nactive_file 400000\n");
  EXPECT_EQ(available_bytes(root), 910000);
}

TEST(Memory, OfThisProcessAndMachineIsKnown) {
  EXPECT_GT(peak_resident_bytes(), int64_t{1} << 20);
  EXPECT_GT(available_bytes(), 0);
}

}  // namespace
}  // namespace cepe::base
