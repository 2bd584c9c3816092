#include "context/context_store.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "base/error.h"
#include "base/interrupt.h"
#include "disk_records.h"
#include "expect_error.h"
#include "full_disk.h"
#include "short_memory.h"
#include "tiny_encoder.h"

namespace cepe::context {
namespace {

using base::ErrorCode;
using base::Path;
using testing::HasSubstr;
namespace fs = std::filesystem;

using test::encoder_vocabulary;
using test::encoder_width;
using test::kept_chunks;
using test::some_chunks;
using test::some_ids;
using test::tiny_adapter;

void expect_same(const model::ContextStates& found, const model::ContextStates& expected) {
  EXPECT_EQ(found.rows, expected.rows);
  ASSERT_EQ(found.pages.size(), expected.pages.size());
  for (size_t i = 0; i < found.pages.size(); ++i) {
    EXPECT_EQ(found.pages[i].scalar_type(), expected.pages[i].scalar_type());
    EXPECT_TRUE(at::equal(found.pages[i], expected.pages[i])) << "page " << i;
  }
}

class Store : public testing::Test {
 protected:
  Path parent = test::quick_folder() / ("cepe-context-store-" + std::to_string(::getpid()));
  Path folder = parent / "chunks";
  model::Adapter adapter = tiny_adapter();
  void TearDown() override { fs::remove_all(parent); }

  StoreOptions options() const { return {folder, int64_t{1} << 30, 2}; }
};

TEST_F(Store, GivesTheSameStatesTheFirstTimeTheSecondTimeAndFromANewStore) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const model::Adapter typed = tiny_adapter(type);
    ContextStore store(typed, options());
    const std::vector<Chunk> chunks = some_chunks();
    const model::ContextStates first = store.get_or_encode(chunks);
    EXPECT_EQ(store.counters().encoded, 5);
    EXPECT_EQ(store.counters().encoded_tokens, 34);
    EXPECT_EQ(first.rows, 34);
    expect_same(store.get_or_encode(chunks), first);
    EXPECT_EQ(store.counters().encoded, 5);
    EXPECT_EQ(store.counters().found, 5);
    EXPECT_EQ(store.counters().found_tokens, 34);
    ContextStore later(typed, options());
    expect_same(later.get_or_encode(chunks), first);
    EXPECT_EQ(later.counters().encoded, 0);
  }
}

TEST_F(Store, GivesTheEncodersOwnStates) {
  ContextStore store(adapter, options());
  const std::vector<Chunk> chunks = some_chunks();
  const model::ContextStates states = store.get_or_encode(chunks);
  for (size_t i = 0; i < chunks.size(); ++i) {
    const auto length = static_cast<int64_t>(chunks[i].ids.size());
    at::Tensor ids = at::empty({1, length}, at::kLong);
    std::copy(chunks[i].ids.begin(), chunks[i].ids.end(), ids.mutable_data_ptr<int64_t>());
    const at::Tensor expected = model::forward(adapter.encoder, ids)[0];
    ASSERT_EQ(states.pages[i].sizes(), expected.sizes());
    EXPECT_LT((states.pages[i] - expected).abs().max().item<float>(), 1e-5) << "chunk " << i;
  }
}

TEST_F(Store, KeepsFloatStatesOnlyOfAnEncoderThatIsFloatThroughout) {
  EXPECT_EQ(stored_type(adapter.encoder), at::kFloat);
  EXPECT_EQ(stored_type(tiny_adapter(at::kBFloat16).encoder), at::kBFloat16);
  adapter.encoder.layers[1].output.weight = adapter.encoder.layers[1].output.weight.to(at::kBFloat16);
  EXPECT_EQ(stored_type(adapter.encoder), at::kBFloat16);
  ContextStore store(adapter, options());
  EXPECT_EQ(store.get_or_encode(some_chunks()).pages[0].scalar_type(), at::kBFloat16);
}

TEST_F(Store, ReusesChunksOfDocumentsInAnotherOrderAndMixture) {
  ContextStore store(adapter, options());
  const std::vector<Chunk> chunks = some_chunks();
  const model::ContextStates first = store.get_or_encode(chunks);
  std::vector<Chunk> mixed{chunks[3], chunks[4], chunks[0], chunks[1], chunks[2]};
  for (const Chunk& chunk : split(some_ids(9, 29), 8, 2)) mixed.push_back(chunk);
  const model::ContextStates second = store.get_or_encode(mixed);
  EXPECT_EQ(store.counters().encoded, 5 + 2);
  EXPECT_TRUE(at::equal(second.pages[0], first.pages[3]));
  EXPECT_TRUE(at::equal(second.pages[4], first.pages[2]));
}

TEST_F(Store, EncodesARepeatedChunkOnce) {
  for (const Path& place : {Path(), folder}) {
    ContextStore store(adapter, {place, int64_t{1} << 30, 2});
    const std::vector<Chunk> twice{{some_ids(8, 1), 0}, {some_ids(8, 2), 0}, {some_ids(8, 1), 1}};
    const model::ContextStates states = store.get_or_encode(twice);
    EXPECT_EQ(store.counters().encoded, 2);
    EXPECT_EQ(store.counters().found, 1);
    EXPECT_EQ(store.counters().found_tokens, 8);
    ASSERT_EQ(states.pages.size(), 3u);
    EXPECT_TRUE(at::equal(states.pages[0], states.pages[2]));
  }
}

TEST_F(Store, EncodesACorruptRecordAgainToTheSameStates) {
  ContextStore store(adapter, options());
  const std::vector<Chunk> chunks = some_chunks();
  const model::ContextStates first = store.get_or_encode(chunks);
  Path segment;
  for (const auto& entry : fs::directory_iterator(folder))
    if (is_segment_name(entry.path().filename().string())) segment = entry.path();
  {
    std::fstream file(segment, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(200);
    file << "spoilt";
  }
  testing::internal::CaptureStderr();
  expect_same(ContextStore(adapter, options()).get_or_encode(chunks), first);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr(segment.string()));
  ContextStore later(adapter, options());
  expect_same(later.get_or_encode(chunks), first);
  EXPECT_EQ(later.counters().encoded, 0);
}

TEST_F(Store, WorksOnWithoutAFolderItCanUse) {
  fs::create_directories(parent);
  std::ofstream(folder) << "a file";
  testing::internal::CaptureStderr();
  ContextStore broken(adapter, options());
  const model::ContextStates found = broken.get_or_encode(some_chunks());
  broken.get_or_encode(some_chunks());
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
  EXPECT_EQ(broken.counters().encoded, 5) << "what somebody holds is shared";
  ContextStore none(adapter, {});
  expect_same(none.get_or_encode(some_chunks()), found);
}

TEST_F(Store, TwoStoresShareAFolder) {
  ContextStore one(adapter, options()), other(adapter, options());
  const model::ContextStates first = one.get_or_encode(some_chunks());
  expect_same(other.get_or_encode(some_chunks()), first);
  EXPECT_EQ(other.counters().encoded, 0);
  EXPECT_EQ(kept_chunks(folder), 5);
  EXPECT_EQ(DiskTier(DiskTierOptions{folder}).clear().chunks, 5);
  expect_same(other.get_or_encode(some_chunks()), first);
  EXPECT_EQ(other.counters().encoded, 5);
}

TEST_F(Store, NamesTheDocumentOfAnIdOutsideTheVocabulary) {
  ContextStore store(adapter, options());
  for (const text::Token wrong : {-1, static_cast<int>(encoder_vocabulary)}) {
    const std::vector<Chunk> chunks{{{1, 2}, 0}, {{3, wrong}, 6}};
    test::expect_error(ErrorCode::invalid_argument, "document 6 has token " + std::to_string(wrong),
                       [&] { store.get_or_encode(chunks); });
  }
  test::expect_error(ErrorCode::invalid_argument, "document 4", [&] {
    store.get_or_encode(std::vector<Chunk>{{{}, 4}});
  });
  EXPECT_EQ(kept_chunks(folder), 0);
}

TEST_F(Store, RefusesAChunkLongerThanTheEncoderReads) {
  adapter.chunk_size = 8;
  ContextStore store(adapter, options());
  const std::vector<Chunk> chunks{{some_ids(8, 1), 0}, {some_ids(9, 2), 6}};
  test::expect_error(ErrorCode::invalid_argument,
                     "document 6 has a chunk of 9 tokens; the encoder reads chunks of at most 8",
                     [&] { store.get_or_encode(chunks); });
  test::expect_error(ErrorCode::invalid_argument, "document 6", [&] { store.encode_missing(chunks); });
  EXPECT_EQ(store.counters().encoded, 0);
}

TEST_F(Store, RefusesAContextThatCannotFitBeforeItEncodesAnything) {
  adapter.encoder.config.width = int64_t{1} << 40;  // states of so much are in no machine
  ContextStore store(adapter, {});
  test::expect_error(ErrorCode::out_of_memory, "tokens of context take", [&] { store.get_or_encode(some_chunks()); });
  EXPECT_EQ(store.counters().encoded, 0);
}

TEST_F(Store, RefusesOptionsOutOfRange) {
  test::expect_error(ErrorCode::invalid_argument, "0 chunks per batch", [&] { ContextStore(adapter, {folder, 1, 0}); });
}

TEST_F(Store, LeavesNoGradientBehind) {
  adapter.encoder.norm.weight.requires_grad_(true);
  ContextStore store(adapter, {});
  EXPECT_FALSE(store.get_or_encode(some_chunks()).pages[0].requires_grad());
}

TEST_F(Store, KeepsInMemoryWhatTheBudgetAllowsAndWhatSomebodyHolds) {
  const std::vector<Chunk> chunks = split(some_ids(80, 3), 8, 0);
  StoreOptions memory;
  memory.host_bytes = int64_t{4} * 8 * encoder_width * 4;  // four chunks of float32
  ContextStore store(adapter, memory);
  {
    const model::ContextStates all = store.get_or_encode(chunks);
    EXPECT_EQ(store.counters().host.pages, 10) << "pinned";
    expect_same(store.get_or_encode(chunks), all);
    EXPECT_EQ(store.counters().encoded, 10);
    EXPECT_EQ(store.counters().host.hits, 10);
    for (const at::Tensor& page : all.pages)
      EXPECT_EQ(page.storage().nbytes(), page.nbytes()) << "nothing else is held";
  }
  const std::span recent = std::span(chunks).last(4);
  store.get_or_encode(recent);
  EXPECT_EQ(store.counters().encoded, 10);
  EXPECT_EQ(store.counters().host.pages, 4);
  EXPECT_EQ(store.counters().host.evicted, 6);
  store.get_or_encode(std::span(chunks).first(1));
  EXPECT_EQ(store.counters().encoded, 11);
}

TEST_F(Store, ManyThreadsEncodeEachChunkOnceAndGetTheSameStates) {
  for (const bool on_disk : {false, true}) {
    StoreOptions chosen;
    if (on_disk) chosen.folder = folder;
    chosen.host_bytes = 1 << 20;
    ContextStore store(adapter, chosen);
    std::vector<Chunk> chunks;
    for (int64_t i = 0; i < 40; ++i) chunks.push_back({some_ids(16, 3 + i), 0});
    const model::ContextStates expected = ContextStore(adapter, {}).get_or_encode(chunks);
    std::vector<model::ContextStates> found(6);
    std::vector<std::thread> threads;
    for (size_t n = 0; n < found.size(); ++n) {
      threads.emplace_back([&, n] {
        const size_t first = n * 4;  // they overlap
        found[n] = store.get_or_encode(std::span(chunks).subspan(first, 20));
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(store.counters().encoded, 40);
    EXPECT_EQ(store.counters().found, 6 * 20 - 40);
    for (size_t n = 0; n < found.size(); ++n) {
      for (size_t i = 0; i < 20; ++i) {
        const float distance = (found[n].pages[i] - expected.pages[n * 4 + i]).abs().max().item<float>();
        ASSERT_LT(distance, 1e-5) << "thread " << n << ", chunk " << i;
      }
    }
  }
}

TEST_F(Store, AFailureReachesAllThatWaitAndNobodyHangs) {
  adapter.encoder.layers[1].output.weight = at::randn({3, 3});  // its product fails
  ContextStore store(adapter, {});
  std::atomic<int> failed = 0;
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int n = 0; n < 4; ++n) {
    threads.emplace_back([&] {
      try {
        store.get_or_encode(some_chunks());
      } catch (const std::exception&) {
        ++failed;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failed, 4);
}

TEST_F(Store, EightBitStatesTakeHalfTheBytesAndStayNear) {
  const model::ContextStates exact = ContextStore(adapter, {}).get_or_encode(some_chunks());
  StoreOptions chosen = options();
  chosen.type = StateType::int8;
  chosen.host_bytes = 1 << 20;
  chosen.device_bytes = 100000;
  ContextStore store(adapter, chosen);
  const model::ContextStates first = store.get_or_encode(some_chunks());
  EXPECT_EQ(store.counters().host.bytes, 34 * (encoder_width + 4));
  for (size_t i = 0; i < exact.pages.size(); ++i) {
    const at::Tensor bound = exact.pages[i].abs().amax(-1, true) * (0.5 / 127 + 1.0 / 256);
    EXPECT_TRUE(((first.pages[i].to(at::kFloat) - exact.pages[i]).abs() <= bound).all().item<bool>()) << "page " << i;
    EXPECT_FALSE(at::equal(first.pages[i].to(at::kFloat), exact.pages[i]));
  }
  expect_same(store.get_or_encode(some_chunks()), first);
  ContextStore later(adapter, chosen);
  expect_same(later.get_or_encode(some_chunks()), first);
  EXPECT_EQ(later.counters().encoded, 0);
  EXPECT_EQ(later.counters().disk.hits, 5);
  ContextStore other(adapter, options());
  other.get_or_encode(some_chunks());
  EXPECT_EQ(other.counters().encoded, 5) << "states of another type are other states";
}

TEST_F(Store, PagesOfTheArenaAreReusedOnlyOnceNobodyHoldsThem) {
  StoreOptions chosen;
  chosen.type = StateType::int8;  // pages of their own on the CPU too
  adapter.chunk_size = 8;
  chosen.device_bytes = int64_t{3} * 8 * encoder_width * 2;
  ContextStore store(adapter, chosen);
  const std::vector<Chunk> chunks = split(some_ids(80, 3), 8, 0);
  const at::Tensor row = store.get_or_encode(std::span(chunks).first(1)).pages[0].select(0, 2);  // of a page let go of
  const at::Tensor before = row.clone();
  const model::ContextStates held = store.get_or_encode(std::span(chunks).subspan(1, 2));
  std::vector<at::Tensor> copies;
  for (const at::Tensor& page : held.pages) copies.push_back(page.clone());
  for (size_t i = 3; i < 10; ++i) store.get_or_encode(std::span(chunks).subspan(i, 1));
  EXPECT_TRUE(at::equal(row, before));
  for (size_t i = 0; i < 2; ++i) EXPECT_TRUE(at::equal(held.pages[i], copies[i]));
}

TEST_F(Store, AnArenaForWhichThereIsNoMemoryIsRefusedWithTheOptionToChange) {
  StoreOptions chosen;
  chosen.type = StateType::int8;
  chosen.device_bytes = 1 << 20;
  const test::ShortMemory memory(1 << 19);
  test::expect_error(base::ErrorCode::out_of_memory, "--device-cache", [&] { ContextStore(adapter, chosen); });
}

TEST_F(Store, WritesBehindAndIsDoneOnceItIsFlushedOrGone) {
  StoreOptions chosen = options();
  chosen.write_behind = true;
  const std::vector<std::string> names{"one.txt", "two.txt"};
  {
    ContextStore store(adapter, chosen);
    EXPECT_EQ(store.encode_missing(some_chunks(), names), 5);
    store.flush();
    EXPECT_EQ(kept_chunks(folder), 5);
    EXPECT_EQ(store.encode_missing(some_chunks(), names), 0);
    store.get_or_encode(split(some_ids(8, 40), 8, 0));
  }
  EXPECT_EQ(kept_chunks(folder), 6);
  DiskTierOptions disk;
  disk.folder = folder;
  const DiskUsage usage = DiskTier(disk).usage();
  ASSERT_EQ(usage.documents.size(), 3u);
  EXPECT_EQ(usage.documents[1].source, "one.txt");
  EXPECT_EQ(usage.documents[1].chunks, 3);
}

TEST_F(Store, GivesWhatItEncodesAheadToWhoeverHasAUseForItWithoutReadingItBack) {
  StoreOptions chosen = options();
  chosen.write_behind = true;
  ContextStore store(adapter, chosen), other(adapter, {});
  model::ContextStates given;
  const auto use = [&](const model::ContextStates& part) {
    for (const at::Tensor& page : part.pages) given.append(page);
    given.keys.insert(given.keys.end(), part.keys.begin(), part.keys.end());
  };
  EXPECT_EQ(store.encode_missing(some_chunks(), {}, use), 5);
  EXPECT_EQ(store.counters().disk.hits, 0);
  const model::ContextStates expected = other.get_or_encode(some_chunks());
  expect_same(given, expected);
  EXPECT_EQ(given.keys.size(), expected.pages.size());
}

// No two of them are the same.
std::vector<Chunk> many_chunks(int64_t count) {
  std::vector<Chunk> chunks;
  for (int64_t i = 0; i < count; ++i) {
    chunks.push_back({some_ids(16, i), 0});
    chunks.back().ids[0] = static_cast<text::Token>(i % encoder_vocabulary);
    chunks.back().ids[1] = static_cast<text::Token>(i / encoder_vocabulary % encoder_vocabulary);
    chunks.back().ids[2] = static_cast<text::Token>(i / encoder_vocabulary / encoder_vocabulary);
  }
  return chunks;
}

TEST_F(Store, OfMoreThanItsLimitTheBeginningIsKeptAndFoundAgain) {
  StoreOptions chosen = options();
  chosen.max_bytes = int64_t{300} * 1152;  // of 600 records
  chosen.chunks_per_batch = 256;
  const std::vector<Chunk> chunks = many_chunks(600);
  EXPECT_EQ(ContextStore(adapter, chosen).encode_missing(chunks), 600);
  for (int time = 0; time < 2; ++time) EXPECT_EQ(ContextStore(adapter, chosen).encode_missing(chunks), 300);
  EXPECT_EQ(ContextStore(adapter, chosen).encode_missing(std::span(chunks).first(300)), 0);
}

TEST_F(Store, EndsSoonAfterTheDiskIsFullWhenItEncodesAhead) {
  const std::vector<Chunk> chunks = many_chunks(5000);
  StoreOptions chosen = options();
  chosen.chunks_per_batch = 256;
  testing::internal::CaptureStderr();
  {
    ContextStore store(adapter, chosen);
    const test::FullDisk full(4096);
    EXPECT_LT(store.encode_missing(chunks), 5000);
    EXPECT_FALSE(store.keeps_on_disk());
    chosen.host_bytes = 1 << 20;
  }
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("encoded text is not kept"));
  testing::internal::CaptureStderr();
  {
    ContextStore store(adapter, chosen);
    const test::FullDisk full(4096);
    EXPECT_EQ(store.encode_missing(std::span(chunks).first(3000)), 3000) << "memory keeps some";
  }
  testing::internal::GetCapturedStderr();
}

// Runs in a process of its own: interrupts, once caught, stay.
[[noreturn]] void encode_until_interrupted(const model::Adapter& adapter, const Path& folder,
                                           const std::vector<Chunk>& chunks) {
  base::catch_interrupts();
  ContextStore store(adapter, {folder, int64_t{1} << 30, 1});
  std::thread watcher([&] {
    while (kept_chunks(folder) == 0) std::this_thread::yield();
    ::raise(SIGINT);
  });
  int status = 1;
  try {
    store.get_or_encode(chunks);
  } catch (const base::Interrupted&) {
    const int64_t kept = kept_chunks(folder);
    const bool some = kept > 0 && kept < static_cast<int64_t>(chunks.size());
    status = some && kept == store.counters().encoded ? 0 : 2;
  }
  watcher.join();
  fs::remove_all(folder.parent_path());
  ::_exit(status);
}

TEST_F(Store, KeepsWhatItEncodedBeforeAnInterrupt) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // LibTorch's threads do not live through a fork
  EXPECT_EXIT(encode_until_interrupted(adapter, folder, many_chunks(3000)), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace cepe::context
