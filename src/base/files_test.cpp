#include "base/files.h"

#include <gtest/gtest.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <map>
#include <optional>

#include "base/error.h"
#include "base/file_layer.h"
#include "expect_error.h"

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

TEST_F(Files, WhatAKilledProcessLeavesIsKnownByItsName) {
  for (int turn = 0; turn < 200; ++turn) {
    const FileWriter writer(folder / "x");
    const std::string name = std::filesystem::directory_iterator(folder)->path().filename().string();
    EXPECT_EQ(name.size(), 8u) << name;
    EXPECT_EQ(name.find_first_not_of("0123456789", 2), std::string::npos) << name;
  }
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
  test::expect_error(ErrorCode::invalid_argument, "this is a folder; expected a file", [&] { MappedFile{folder}; });
  replace_file(folder / "empty", "");
  EXPECT_TRUE(MappedFile(folder / "empty").bytes().empty());
}

TEST_F(Files, AFolderThatIsMissingForWhatIsWrittenIsNamed) {
  test::expect_error(ErrorCode::not_found, "there is no folder " + (folder / "none").string() + "; make it first",
                     [&] { replace_file(folder / "none/x", ""); });
}

TEST_F(Files, ALinkToNothingIsNoAbsence) {
  EXPECT_FALSE(is_there(folder / "x"));
  EXPECT_FALSE(is_there(folder / "x" / "below"));
  EXPECT_TRUE(is_there(folder));
  EXPECT_FALSE(may_be_there(folder / "x"));
  EXPECT_TRUE(may_be_there(folder));
  EXPECT_TRUE(may_be_there(folder / std::string(300, 'x'))) << "a name too long to be looked at";
  std::filesystem::create_symlink("blobs/1234", folder / "x");
  for (const auto& look : {+[](const Path& path) { is_there(path); }, +[](const Path& path) { read_file(path); }}) {
    try {
      look(folder / "x");
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::not_found);
      EXPECT_NE(std::string(error.what()).find("x: a symbolic link to blobs/1234"), std::string::npos) << error.what();
    }
  }
}

TEST_F(Files, AReplacedFileKeepsItsPermissionsAndALinkIsItselfReplaced) {
  const Path path = folder / "x", link = folder / "link";
  replace_file(path, "old");
  ASSERT_EQ(::chmod(path.c_str(), 0640), 0);
  replace_file(path, "new");
  struct stat status {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0640U);
  std::filesystem::create_symlink("x", link);
  replace_file(link, "beside");
  EXPECT_EQ(read_file(path), "new");
  EXPECT_EQ(read_file(link), "beside");
}

TEST_F(Files, ANewFileIsAsOpenAsTheUsersMaskSays) {
  const mode_t before = ::umask(027);
  replace_file(folder / "x", "new");
  EXPECT_EQ(::umask(before), 027U);
  struct stat status {};
  ASSERT_EQ(::stat((folder / "x").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0640U);
}

TEST_F(Files, AReplacingFileIsNeverMoreOpenThanTheReplacedOne) {
  replace_file(folder / "x", "old");
  ASSERT_EQ(::chmod((folder / "x").c_str(), 0600), 0);
  const FileWriter writer(folder / "x");
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    struct stat status {};
    ASSERT_EQ(::stat(entry.path().c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0600U) << entry.path();
  }
}

TEST_F(Files, OnlyAFileIsReplaced) {
  const Path pipe = folder / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  std::filesystem::create_symlink(pipe, folder / "link");
  for (const Path& path : {pipe, folder, folder / "link"}) EXPECT_THROW(replace_file(path, "x"), Error) << path;
  EXPECT_TRUE(std::filesystem::is_fifo(folder / "link"));
}

TEST_F(Files, WithoutHomeTheListOfUsersSaysWhereTheCacheIs) {
  const passwd* user = ::getpwuid(::getuid());
  if (!user) GTEST_SKIP() << "this user is in no list";
  const std::string expected = user->pw_dir;
  std::map<std::string, std::optional<std::string>> before;
  for (const char* name : {"HOME", "CEPE_CACHE_DIR", "XDG_CACHE_HOME"}) {
    const char* value = std::getenv(name);
    before[name] = value ? std::optional<std::string>(value) : std::nullopt;
    ::unsetenv(name);
  }
  EXPECT_EQ(default_cache_folder(), Path(expected) / ".cache" / "cepe");
  for (const auto& [name, value] : before)
    if (value) ::setenv(name.c_str(), value->c_str(), 1);
}

TEST_F(Files, ANamedPipeIsRefusedAtOnce) {
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_THROW(MappedFile{folder / "pipe"}, Error);
}

}  // namespace
}  // namespace cepe::base
