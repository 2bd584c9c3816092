#include "cli/output_folder.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "temporary_folder.h"

namespace cepe::cli {
namespace {

TEST(OutputFolder, OfACommandThatFailsNothingIsLeftThatWantsForce) {
  const test::TemporaryFolder root;
  const base::Path folder = root / "a" / "b";
  {
    const OutputFolder output(folder, false, "--output");
    root.write("a/b/model.safetensors", "half of it");
    root.write("a/b/decoder/config.json", "{}");
  }
  EXPECT_FALSE(std::filesystem::exists(root / "a"));
  std::filesystem::create_directories(folder);
  {
    const OutputFolder output(folder, false, "--output");
    root.write("a/b/model.safetensors", "half of it");
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder)) << "it was there";
}

TEST(OutputFolder, WhatAFolderHeldBeforeStays) {
  const test::TemporaryFolder root;
  root.write("a/notes.txt", "mine");
  EXPECT_THROW(OutputFolder(root / "a", false, "--output"), base::Error);
  { const OutputFolder output(root / "a", true, "--output"); }
  { const OutputFolder output(root / "a" / "b", true, "--output"); }
  EXPECT_EQ(test::content_of(root / "a" / "notes.txt"), "mine");
  EXPECT_FALSE(std::filesystem::exists(root / "a" / "b"));
}

TEST(OutputFolder, WhatIsKeptStays) {
  const test::TemporaryFolder root;
  {
    OutputFolder output(root / "a", false, "--output");
    root.write("a/config.json", "{}");
    output.keep();
  }
  EXPECT_EQ(test::content_of(root / "a" / "config.json"), "{}");
}

}  // namespace
}  // namespace cepe::cli
