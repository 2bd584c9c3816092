#include "cli/runtime.h"

#include <gtest/gtest.h>

#include <functional>

#include "temporary_folder.h"

namespace cepe::cli {
namespace {

int64_t kept_on_disk(const CommonOptions& common, const std::function<void(ModelOptions&)>& change) {
  ModelOptions options;
  options.kept_disk = "auto";
  change(options);
  return open_options(options, common).projection_bytes;
}

TEST(OpenOptions, WhereNoKeysAndValuesAreKeptOnDiskTheirFolderIsNotLookedAt) {
  const test::TemporaryFolder cache;
  CommonOptions common;
  common.cache_folder = cache.path().string();
  EXPECT_GT(kept_on_disk(common, [](ModelOptions&) {}), 0);
  EXPECT_EQ(kept_on_disk(common, [](ModelOptions& options) { options.no_cache = true; }), 0);
  EXPECT_EQ(kept_on_disk(common, [](ModelOptions& options) { options.cache_size = "0"; }), 0);
  EXPECT_EQ(kept_on_disk(common, [](ModelOptions& options) { options.kept_memory = "0"; }), 0);
  EXPECT_EQ(kept_on_disk(common, [](ModelOptions& options) { options.cross_attention = "absorbed"; }), 0);
  common.dtype = "float32";
  EXPECT_EQ(kept_on_disk(common, [](ModelOptions&) {}), 0);
  EXPECT_GT(kept_on_disk(common, [](ModelOptions& options) { options.kept_type = "int8"; }), 0);
}

}  // namespace
}  // namespace cepe::cli
