#include "base/memory.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "temporary_folder.h"

namespace cepe::base {
namespace {

class Memory : public testing::Test {
 protected:
  const test::TemporaryFolder folder_;
  const std::string root_ = folder_.path().string();

  void SetUp() override { write("/proc/meminfo", "MemTotal:       9000 kB\nMemAvailable:    8000 kB\n"); }
  void write(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }
};

TEST_F(Memory, OfAControlGroupIsTakenByWhatItCannotGiveBack) {
  const std::string group = "/sys/fs/cgroup";
  EXPECT_EQ(available_bytes(root_), 8000 * 1024);
  write(group + "/memory.max", "max\n");
  write(group + "/memory.current", "990000\n");
  write(group + "/memory.stat", "anon 90000\nfile 900000\nshmem 10000\ninactive_file 490000\nactive_file 400000\n");
  EXPECT_EQ(available_bytes(root_), 8000 * 1024);
  write(group + "/memory.max", "1000000\n");
  EXPECT_EQ(available_bytes(root_), 900000);
}

TEST_F(Memory, IsWhatTheTightestOfTheGroupsAroundThisProcessLeaves) {
  const std::string outer = "/sys/fs/cgroup/user.slice", inner = outer + "/a:b.service";
  write("/proc/self/cgroup", "0::/user.slice/a:b.service\n");
  write(inner + "/memory.max", "500000\n");
  write(inner + "/memory.stat", "anon 100000\n");
  EXPECT_EQ(available_bytes(root_), 400000);
  write(outer + "/memory.max", "900000\n");
  write(outer + "/memory.stat", "anon 700000\n");
  EXPECT_EQ(available_bytes(root_), 200000);
  write(inner + "/memory.max", "150000\n");
  EXPECT_EQ(available_bytes(root_), 50000);
  for (const char* what_is_held_or_less : {"100000\n", "90000\n", "0\n"}) {
    write(inner + "/memory.max", what_is_held_or_less);
    EXPECT_EQ(available_bytes(root_), 200000) << "such a limit is not kept, and bounds nothing";
  }
}

TEST_F(Memory, IsWhatControlGroupsOfTheFirstVersionLeave) {
  const std::string tree = "/sys/fs/cgroup/memory", group = tree + "/docker/1";
  write("/proc/self/cgroup", "3:cpuset:/elsewhere\n2:hugetlb,memory:/docker/1\n0::/\n");
  write(tree + "/memory.limit_in_bytes", "9223372036854771712\n");
  write(group + "/memory.limit_in_bytes", "1000000\n");
  write(group + "/memory.usage_in_bytes", "990000\n");
  write(group + "/memory.stat", "rss 1\nshmem 1\ntotal_cache 9000\ntotal_rss 3000\ntotal_shmem 2000\n");
  EXPECT_EQ(available_bytes(root_), 995000);
}

// A container sees its own group in place of the tree, though the name may be what the host calls it.
TEST_F(Memory, OfAContainerIsFoundUnderWhateverNameItsGroupHas) {
  for (const std::string name : {"/", "/docker/1", "/../../docker/1", ""}) {
    write("/proc/self/cgroup", "2:memory:" + name + "\nnot a line\n");
    write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "1000000\n");
    write("/sys/fs/cgroup/memory/memory.stat", "total_rss 400000\n");
    EXPECT_EQ(available_bytes(root_), 600000) << name;
  }
}

TEST_F(Memory, OfThisProcessAndMachineIsKnown) {
  EXPECT_GT(peak_resident_bytes(), int64_t{1} << 20);
  EXPECT_GT(available_bytes(), 0);
}

}  // namespace
}  // namespace cepe::base
