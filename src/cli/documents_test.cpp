#include "cli/documents.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "base/error.h"

namespace cepe::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class Documents : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void write(const std::string& name, const std::string& content) {
    std::filesystem::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << content;
  }
  std::vector<std::string> names() {
    std::vector<std::string> found;
    for (const base::Path& path : list_folder(folder_)) found.push_back(path.lexically_relative(folder_).string());
    return found;
  }
  std::string message_of(const std::vector<std::string>& arguments) {
    try {
      read_documents(arguments);
    } catch (const base::Error& error) {
      EXPECT_TRUE(error.is_users());
      return error.what();
    }
    return "";
  }
  base::Path folder_ = base::Path(testing::TempDir()) / ("cepe-documents-" + std::to_string(getpid()));
};

TEST_F(Documents, FolderIsSortedAndLeavesOutWhatIsHiddenMadeOrNoText) {
  for (const char* name : {"b.txt", "a/z.md", "a/b.cpp", ".git/config", ".hidden", "node_modules/x/y.js",
                           "build/out.txt", "picture.png", "weights.safetensors"}) {
    write(name, "text");
  }
  EXPECT_THAT(names(), ElementsAre("a/b.cpp", "a/z.md", "b.txt"));
}

TEST_F(Documents, FolderPassesOverABadFileAndKeepsTheRest) {
  write("1.txt", "first");
  write("2.txt", std::string("\x7f"
                             "ELF\0\0",
                             6));
  write("3.txt", "third");
  const auto documents = read_documents({folder_.string()});
  ASSERT_EQ(documents.size(), 2u);
  EXPECT_EQ(documents[0].text, "first");
  EXPECT_EQ(documents[1].text, "third");
}

TEST_F(Documents, APipeGivenByItsPathIsRefusedWithTheWayToGiveIt) {
  const std::string pipe = (folder_ / "pipe").string();
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THAT(message_of({pipe}), HasSubstr("give - and put the text on standard input"));
}

TEST_F(Documents, WhatHoldsNoTextIsWarnedOf) {
  write("empty.txt", "");
  write("folder/mark.txt", "\xef\xbb\xbf");
  write("text.txt", "text");
  for (const char* name : {"empty.txt", "folder", "text.txt"}) {
    testing::internal::CaptureStderr();
    read_documents({(folder_ / name).string()});
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_EQ(said.find("it holds no text") != std::string::npos, std::string(name) != "text.txt") << said;
  }
}

TEST_F(Documents, FileGivenByItselfIsRefusedWithAHint) {
  write("paper.txt", "%PDF-1.7\n...");
  EXPECT_THAT(message_of({(folder_ / "paper.txt").string()}), HasSubstr("pdftotext"));
  write("page.txt", "<!DOCTYPE html><p>");
  EXPECT_THAT(message_of({(folder_ / "page.txt").string()}), HasSubstr("HTML"));
}

TEST_F(Documents, NumberIsNotAFile) {
  EXPECT_THAT(message_of({"8192"}), HasSubstr("a number is not a file"));
  EXPECT_THAT(message_of({"no-such-file.txt"}), HasSubstr("no such file"));
}

TEST_F(Documents, FolderWithoutTextIsAnError) {
  write("picture.png", "x");
  EXPECT_THAT(message_of({folder_.string()}), HasSubstr("without text files"));
}

}  // namespace
}  // namespace cepe::cli
