#include "context/projection_store.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "context/context_store.h"
#include "expect_error.h"
#include "int8_bytes.h"
#include "ops/int8_context.h"
#include "temporary_folder.h"
#include "tiny_models.h"

namespace cepe::context {
namespace {

struct Projections : testing::Test {
  const at::NoGradGuard none;
  const test::TemporaryFolder folder;
  model::CepeModel model = test::tiny_model(41);
  ContextStore states{*model.adapter, {}};
  test::TinyWeights random{42};
  const std::vector<text::Token> ids = random_ids(330);

  std::vector<text::Token> random_ids(int64_t count) {
    const at::Tensor drawn = random.tokens({count}, 96);
    return {drawn.const_data_ptr<int64_t>(), drawn.const_data_ptr<int64_t>() + count};
  }
  ProjectionStoreOptions options(int64_t most = 1 << 24) const {
    return {.folder = folder.path() / "kept", .max_bytes = most, .least_bytes = 1, .least_bytes_a_second = 0};
  }
  // Of the first tokens, in chunks of 8: the last one is short.
  model::ContextStates context(int64_t tokens) {
    return states.get_or_encode(split(std::span(ids).first(static_cast<size_t>(tokens)), 8, 0));
  }
  ProjectionCounters keep(model::ContextStates& context, const ProjectionStoreOptions& options) {
    ProjectionStore store(model, options);
    store.keep(context);
    return store.counters();
  }
  bool is_folder_there() const { return std::filesystem::exists(folder.path() / "kept"); }

  void expect_right(const model::ContextStates& found) const {
    model::ContextStates expected;
    for (const at::Tensor& page : found.pages) expected.append(page);
    model::keep_projections(expected, model::cross_attention_blocks(model), model::head_shape(model.decoder.config),
                            at::kByte);
    ASSERT_EQ(found.kept.size(), expected.kept.size());
    for (size_t i = 0; i < expected.kept.size(); ++i) {
      const ops::Int8Context &one = *found.kept[i].in_8_bits, &other = *expected.kept[i].in_8_bits;
      EXPECT_EQ(test::bytes_of(one), test::bytes_of(other)) << i;
      EXPECT_EQ(one.block_rows, other.block_rows);
      EXPECT_EQ(one.page_blocks, other.page_blocks);
    }
  }
};

TEST_F(Projections, AreMadeOnceAndThenReadByOthers) {
  model::ContextStates first = context(45), second = context(45);
  const ProjectionCounters made = keep(first, options());
  EXPECT_EQ(made.made, 6);
  EXPECT_EQ(made.read, 0);
  expect_right(first);
  const ProjectionCounters read = keep(second, options());
  EXPECT_EQ(read.made, 0);
  EXPECT_EQ(read.read, 6);
  expect_right(second);
}

// A server that gives its disk no time: what was made and not dropped is there in the end.
TEST_F(Projections, ThatWaitForASlowDiskDoNotHoldTheMemoryOfAll) {
  ProjectionStoreOptions slow = options();
  slow.most_waiting_bytes = 0;
  int64_t kept = 0;
  {
    ProjectionStore store(model, slow);
    for (size_t skipped = 1; skipped < 8; ++skipped) {
      model::ContextStates asked = states.get_or_encode(split(std::span(ids).subspan(skipped), 8, 0));
      store.keep(asked);
      expect_right(asked);
    }
    store.flush();
    kept = store.counters().made - store.counters().dropped;
  }
  DiskTier disk({.folder = folder.path() / "kept"});
  EXPECT_EQ(disk.usage().chunks, kept);
  test::expect_error(base::ErrorCode::invalid_argument, "-1 bytes for keys and values that wait", [&] {
    slow.most_waiting_bytes = -1;
    ProjectionStore(model, slow);
  });
}

TEST_F(Projections, OfOneStoreServeSeveralThreads) {
  ProjectionStore store(model, options());
  std::vector<model::ContextStates> contexts;
  for (const int64_t tokens : {300, 307, 314, 321}) contexts.push_back(context(tokens));
  std::vector<std::thread> threads;
  threads.reserve(contexts.size());
  for (model::ContextStates& one : contexts) threads.emplace_back([&] { store.keep(one); });
  for (std::thread& thread : threads) thread.join();
  size_t pages = 0;
  for (const model::ContextStates& one : contexts) {
    expect_right(one);
    pages += one.pages.size();
  }
  const ProjectionCounters counters = store.counters();
  EXPECT_EQ(counters.made + counters.read, static_cast<int64_t>(pages));
}

// Files that somebody removes take up the disk as long as they are open.
TEST_F(Projections, AreReadWithoutHoldingTheFilesOpen) {
  model::ContextStates first = context(45), second = context(45);
  keep(first, options());
  ProjectionStore store(model, options());
  store.keep(second);
  EXPECT_EQ(store.counters().read, 6);
  store.flush();
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code closed;
    EXPECT_NE(std::filesystem::read_symlink(entry.path(), closed).extension(), ".pages");
  }
}

TEST_F(Projections, ThatWaitToBeWrittenAreNotMadeAgain) {
  model::ContextStates stored = context(19), first = context(45), second = context(45);
  keep(stored, options());
  ProjectionStore store(model, options());
  {
    Database other(folder.path() / "kept" / Catalogue::file_name, nullptr);
    const Transaction held(other);  // until the second has what waits of the first
    store.keep(first);
    store.keep(second);
    EXPECT_EQ(store.counters().made, 4);
    EXPECT_EQ(store.counters().read, 2 + 6);
  }
  expect_right(second);
  store.flush();
  EXPECT_EQ(DiskTier({.folder = folder.path() / "kept"}).usage().chunks, 3 + 4);
}

TEST_F(Projections, OfAChunkServeEveryContextThatHasIt) {
  model::ContextStates shorter = context(19), longer = context(45);
  keep(shorter, options());
  const ProjectionCounters counters = keep(longer, options());
  EXPECT_EQ(counters.read, 2) << "the short last chunk of 19 tokens is another";
  EXPECT_EQ(counters.made, 4);
  expect_right(longer);
}

TEST_F(Projections, OfOtherWeightsAreOthers) {
  model::ContextStates first = context(45), second = context(45);
  keep(first, options());
  for (auto& block : model.adapter->cross_attention)
    if (block) block->value.weight = block->value.weight * 2;
  EXPECT_EQ(keep(second, options()).made, 6);
  expect_right(second);
}

TEST_F(Projections, ThatWereDamagedAreMadeAnew) {
  model::ContextStates first = context(45), second = context(45), third = context(45);
  keep(first, options());
  for (const auto& entry : std::filesystem::directory_iterator(folder.path() / "kept")) {
    if (entry.path().extension() != ".pages") continue;
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(300);
    file.put('\x55').put('\x55');
  }
  testing::internal::CaptureStderr();
  EXPECT_EQ(keep(second, options()).made, 1);
  EXPECT_NE(testing::internal::GetCapturedStderr().find("dropped"), std::string::npos);
  expect_right(second);
  EXPECT_EQ(keep(third, options()).read, 6);
}

TEST_F(Projections, OfPagesWithoutKeysOrBeyondTheLimitsAreMadeAndNotWritten) {
  model::ContextStates unknown = context(45), grown = context(45), small = context(45), large = context(45);
  unknown.keys.clear();
  grown.append(context(5).pages.front());
  ProjectionStoreOptions least = options();
  least.least_bytes = 1 << 24;
  EXPECT_EQ(keep(unknown, options()).made, 0);
  EXPECT_EQ(keep(grown, options()).made, 0);
  EXPECT_EQ(keep(small, least).made, 0);
  EXPECT_EQ(keep(large, options(100)).made, 0);
  for (const auto* each : {&unknown, &grown, &small, &large}) expect_right(*each);
  EXPECT_FALSE(is_folder_there());
  test::expect_error(base::ErrorCode::invalid_argument, "-1 bytes", [&] { ProjectionStore(model, options(-1)); });
}

TEST_F(Projections, AreStoredAheadOfQuestionsHoweverFew) {
  ProjectionStoreOptions least = options();
  least.least_bytes = 1 << 24;
  {
    ProjectionStore store(model, least);
    EXPECT_FALSE(store.keeps());
    store.store(context(16), wall_clock());
    store.flush();
    store.store(context(45), wall_clock());
    store.flush();
    EXPECT_TRUE(store.keeps());
    EXPECT_EQ(store.counters().made, 6);
    EXPECT_EQ(store.counters().read, 2) << "the first two chunks again";
    model::ContextStates unknown = context(16);
    unknown.keys.clear();
    test::expect_error(base::ErrorCode::invalid_argument, "without keys", [&] { store.store(unknown, wall_clock()); });
  }
  model::ContextStates asked = context(45);
  EXPECT_EQ(keep(asked, options()).read, 6);
  expect_right(asked);
}

TEST_F(Projections, AreStoredAheadOfQuestionsHoweverSlowTheDisk) {
  model::ContextStates part = context(300);
  keep(part, options());
  ProjectionStoreOptions slow = options();
  slow.least_bytes_a_second = int64_t{1} << 60;
  slow.bytes_to_judge = 1;
  {
    ProjectionStore store(model, slow);
    store.store(context(330), wall_clock());
    EXPECT_EQ(store.counters().read, 37);
  }
  model::ContextStates asked = context(330);
  EXPECT_EQ(keep(asked, options()).read, 42);
}

// In the order in which a program stores a long document.
TEST_F(Projections, OfOneRequestDoNotPushEachOtherOut) {
  std::vector<int64_t> rows(42, 8);
  rows.back() = 2;
  const int64_t limit = model::page_projection_bytes(model, rows) + int64_t{42} * 192;
  const auto chunks = split(ids, 8, 0);
  const auto piece = [&](size_t first) { return states.get_or_encode(std::span(chunks).subspan(first, 14)); };
  {
    ProjectionStore store(model, options(limit));
    const int64_t start = wall_clock();
    for (const size_t first : {0, 14, 28}) store.store(piece(first), start);
    store.flush();
    EXPECT_EQ(store.counters().dropped, 0);
  }
  model::ContextStates asked = context(330);
  EXPECT_EQ(keep(asked, options(limit)).read, 42);
}

TEST_F(Projections, ThatTheDiskDoesNotTakeAreCounted) {
  model::ContextStates stored = context(19);
  keep(stored, options());
  sqlite3_vfs* system = sqlite3_vfs_find(nullptr);
  const auto before = system->xSleep;
  system->xSleep = [](sqlite3_vfs*, int microseconds) { return microseconds; };
  testing::internal::CaptureStderr();
  {
    Database other(folder.path() / "kept" / Catalogue::file_name, nullptr);
    const Transaction held(other);
    ProjectionStore store(model, options());
    store.store(context(45), wall_clock());
    store.flush();
    EXPECT_EQ(store.counters().made, 4);
    EXPECT_EQ(store.counters().dropped, 4);
  }
  EXPECT_NE(testing::internal::GetCapturedStderr().find("another process holds the catalogue"), std::string::npos);
  system->xSleep = before;
}

TEST_F(Projections, AreMadeWhereTheDiskIsSlower) {
  model::ContextStates first = context(330), second = context(330), third = context(330);
  keep(first, options());
  ProjectionStoreOptions faster_than_any_disk = options();
  faster_than_any_disk.least_bytes_a_second = int64_t{1} << 60;
  EXPECT_EQ(keep(second, faster_than_any_disk).read, 42) << "so few bytes do not tell";
  faster_than_any_disk.bytes_to_judge = 1;
  const ProjectionCounters counters = keep(third, faster_than_any_disk);
  EXPECT_EQ(counters.read, 32);
  EXPECT_EQ(counters.made, 10);
  expect_right(third);
}

}  // namespace
}  // namespace cepe::context
