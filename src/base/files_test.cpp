#include "base/files.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>

#include "base/error.h"
#include "base/file_layer.h"

namespace cepe::base {
namespace {

class Files : public testing::Test {
 protected:
  Path folder = std::filesystem::temp_directory_path() / ("cepe-files-" + std::to_string(::getpid()));
  void SetUp() override { std::filesystem::create_directories(folder); }
  void TearDown() override { std::filesystem::remove_all(folder); }
};

TEST_F(Files, ReplacingKeepsTheOldFileUntilCommit) {
  const Path path = folder / "x";
  replace_file(path, "old");
  {
    FileWriter writer(path);
    writer.write("half of the new");
  }
  EXPECT_EQ(read_file(path), "old");
  replace_file(path, "new");
  EXPECT_EQ(read_file(path), "new");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder), {}), 1) << "temporary files stay behind";
}

TEST_F(Files, BytesThatTheMediumCannotGiveAreToldFromOtherErrors) {
  const auto file = disk().open("/proc/self/mem");  // has no first byte: EIO
  std::array<std::byte, 8> bytes;
  try {
    file->read(0, bytes);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::corrupt) << error.what();
  }
}

TEST_F(Files, AMissingFileIsNamed) {
  try {
    MappedFile file(folder / "nothing-here");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::not_found);
    EXPECT_NE(std::string(error.what()).find("nothing-here"), std::string::npos);
  }
}

TEST_F(Files, AFolderIsNoFileAndAnEmptyFileIsEmpty) {
  EXPECT_THROW(MappedFile{folder}, Error);
  replace_file(folder / "empty", "");
  EXPECT_TRUE(MappedFile(folder / "empty").bytes().empty());
}

TEST_F(Files, ANamedPipeIsRefusedAtOnce) {
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_THROW(MappedFile{folder / "pipe"}, Error);
}

}  // namespace
}  // namespace cepe::base
