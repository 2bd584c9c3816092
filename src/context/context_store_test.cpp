#include "context/context_store.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "base/error.h"
#include "base/interrupt.h"
#include "context/record_folder.h"
#include "expect_error.h"

namespace cepe::context {
namespace {

using base::ErrorCode;
using base::Path;
using testing::HasSubstr;
namespace fs = std::filesystem;

constexpr int64_t vocabulary = 50, width = 16, head_width = 8, heads = 2, groups = 1, feed_forward = 24;

model::Linear random_linear(int64_t rows, int64_t columns, at::ScalarType type) {
  return {(at::randn({rows, columns}) * 0.3).to(type), {}, nullptr};
}

model::Norm random_norm() { return {at::randn({width}), {}, 1e-5, model::NormKind::rms}; }

model::Adapter tiny_adapter(at::ScalarType type = at::kFloat, int64_t layers = 2) {
  model::Adapter adapter;
  model::Encoder& encoder = adapter.encoder;
  encoder.config.vocabulary = vocabulary;
  encoder.config.width = width;
  encoder.config.layers = layers;
  encoder.config.heads = heads;
  encoder.config.groups = groups;
  encoder.config.head_width = head_width;
  encoder.config.feed_forward = feed_forward;
  encoder.config.rope.width = head_width;
  encoder.activation_type = type;
  encoder.embedding = random_linear(vocabulary, width, type);
  for (int64_t i = 0; i < layers; ++i) {
    encoder.layers.push_back(
        {random_norm(),
         random_linear((heads + 2 * groups) * head_width, width, type),
         random_linear(width, heads * head_width, type),
         random_norm(),
         {random_linear(2 * feed_forward, width, type), random_linear(width, feed_forward, type)}});
  }
  encoder.norm = random_norm();
  return adapter;
}

std::vector<text::Token> some_ids(int64_t count, int64_t first) {
  std::vector<text::Token> ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(static_cast<text::Token>((first + i * i + i * first) % vocabulary));
  return ids;
}

std::vector<Chunk> some_chunks() {
  std::vector<Chunk> chunks = split(some_ids(21, 3), 8, 0);
  for (const Chunk& chunk : split(some_ids(13, 11), 8, 1)) chunks.push_back(chunk);
  return chunks;
}

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
  Path parent = fs::temp_directory_path() / ("cepe-context-store-" + std::to_string(::getpid()));
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
  const RecordName name(key_of(chunks[1].ids, encoder_fingerprint(adapter.encoder)));
  const Path record = folder / name.subfolder / name.file;
  ASSERT_TRUE(fs::exists(record));
  {
    std::fstream file(record, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(200);
    file << "spoilt";
  }
  testing::internal::CaptureStderr();
  expect_same(store.get_or_encode(chunks), first);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr(record.string()));
  EXPECT_EQ(store.counters().encoded, 5 + 1);
  expect_same(store.get_or_encode(chunks), first);
  EXPECT_EQ(store.counters().encoded, 5 + 1);
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
  EXPECT_EQ(broken.counters().encoded, 10);
  ContextStore none(adapter, {});
  expect_same(none.get_or_encode(some_chunks()), found);
}

TEST_F(Store, TwoStoresShareAFolder) {
  ContextStore one(adapter, options()), other(adapter, options());
  const model::ContextStates first = one.get_or_encode(some_chunks());
  expect_same(other.get_or_encode(some_chunks()), first);
  EXPECT_EQ(other.counters().encoded, 0);
  EXPECT_EQ(store_usage(folder).chunks, 5);
  EXPECT_EQ(clear_store(folder).chunks, 5);
  expect_same(other.get_or_encode(some_chunks()), first);
  EXPECT_EQ(other.counters().encoded, 5);
}

TEST_F(Store, NamesTheDocumentOfAnIdOutsideTheVocabulary) {
  ContextStore store(adapter, options());
  for (const text::Token wrong : {-1, static_cast<int>(vocabulary)}) {
    const std::vector<Chunk> chunks{{{1, 2}, 0}, {{3, wrong}, 6}};
    test::expect_error(ErrorCode::invalid_argument, "document 6 has token " + std::to_string(wrong),
                       [&] { store.get_or_encode(chunks); });
  }
  test::expect_error(ErrorCode::invalid_argument, "document 4", [&] {
    store.get_or_encode(std::vector<Chunk>{{{}, 4}});
  });
  EXPECT_EQ(store_usage(folder).chunks, 0);
}

TEST_F(Store, RefusesOptionsOutOfRange) {
  test::expect_error(ErrorCode::invalid_argument, "0 chunks per batch", [&] { ContextStore(adapter, {folder, 1, 0}); });
}

TEST_F(Store, LeavesNoGradientBehind) {
  adapter.encoder.norm.weight.requires_grad_(true);
  ContextStore store(adapter, {});
  EXPECT_FALSE(store.get_or_encode(some_chunks()).pages[0].requires_grad());
}

// Runs in a process of its own: interrupts, once caught, stay.
[[noreturn]] void encode_until_interrupted(const model::Adapter& adapter, const Path& folder,
                                           const std::vector<Chunk>& chunks) {
  base::catch_interrupts();
  ContextStore store(adapter, {folder, int64_t{1} << 30, 1});
  std::thread watcher([&] {
    while (store_usage(folder).chunks == 0) std::this_thread::yield();
    ::raise(SIGINT);
  });
  int status = 1;
  try {
    store.get_or_encode(chunks);
  } catch (const base::Interrupted&) {
    const int64_t kept = store_usage(folder).chunks;
    const bool some = kept > 0 && kept < static_cast<int64_t>(chunks.size());
    status = some && kept == store.counters().encoded ? 0 : 2;
  }
  watcher.join();
  fs::remove_all(folder.parent_path());
  ::_exit(status);
}

TEST_F(Store, KeepsWhatItEncodedBeforeAnInterrupt) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // LibTorch's threads do not live through a fork
  std::vector<Chunk> chunks;
  for (int64_t i = 0; i < 3000; ++i) {
    chunks.push_back({some_ids(16, i), 0});
    chunks.back().ids[0] = static_cast<text::Token>(i % vocabulary);
    chunks.back().ids[1] = static_cast<text::Token>(i / vocabulary % vocabulary);
    chunks.back().ids[2] = static_cast<text::Token>(i / vocabulary / vocabulary);
  }
  EXPECT_EXIT(encode_until_interrupted(adapter, folder, chunks), testing::ExitedWithCode(0), "");
}

TEST(EncoderFingerprint, ChangesWithEverythingThatDecidesTheStates) {
  const model::Adapter adapter = tiny_adapter();
  const base::Digest original = encoder_fingerprint(adapter.encoder);
  EXPECT_EQ(encoder_fingerprint(model::Encoder(adapter.encoder)), original);
  const auto changes = [&](const char* what, const std::function<void(model::Encoder&)>& change) {
    model::Encoder encoder = adapter.encoder;
    change(encoder);
    EXPECT_NE(encoder_fingerprint(encoder), original) << what;
  };
  const auto nudge = [](at::Tensor& tensor) {
    tensor = tensor.clone();
    tensor.view({-1})[-1].add_(1e-3);
  };
  changes("embedding", [&](auto& encoder) { nudge(encoder.embedding.weight); });
  changes("layer norm", [&](auto& encoder) { nudge(encoder.layers[1].attention_norm.weight); });
  changes("q, k, v", [&](auto& encoder) { nudge(encoder.layers[0].query_key_value.weight); });
  changes("output", [&](auto& encoder) { nudge(encoder.layers[1].output.weight); });
  changes("second norm", [&](auto& encoder) { nudge(encoder.layers[0].feed_forward_norm.weight); });
  changes("gate and up", [&](auto& encoder) { nudge(encoder.layers[1].feed_forward.gate_up.weight); });
  changes("down", [&](auto& encoder) { nudge(encoder.layers[0].feed_forward.down.weight); });
  changes("last norm", [&](auto& encoder) { nudge(encoder.norm.weight); });
  changes("bias", [&](auto& encoder) { encoder.layers[0].output.bias = at::randn({width}); });
  changes("eps", [](auto& encoder) { encoder.norm.eps = 1e-4; });
  changes("theta", [](auto& encoder) { encoder.config.rope.theta = 500000; });
  changes("divisors", [](auto& encoder) { encoder.config.rope.divisors = {1, 2, 3, 4}; });
  changes("number of heads", [](auto& encoder) { encoder.config.heads = 1; });
  changes("activation", [](auto& encoder) { encoder.config.activation = ops::Activation::relu; });
  changes("arithmetic", [](auto& encoder) { encoder.activation_type = at::kBFloat16; });
  changes("type of a weight", [](auto& encoder) { encoder.norm.weight = encoder.norm.weight.to(at::kBFloat16); });
}

TEST(EncoderFingerprint, DependsOnValuesAndNotOnHowTheyLieInMemory) {
  model::Adapter adapter = tiny_adapter();
  const base::Digest original = encoder_fingerprint(adapter.encoder);
  at::Tensor& weight = adapter.encoder.layers[0].output.weight;
  weight = weight.t().contiguous().t();
  ASSERT_FALSE(weight.is_contiguous());
  EXPECT_EQ(encoder_fingerprint(adapter.encoder), original);
}

TEST(EncoderFingerprint, CoversPackedWeights) {
  model::Encoder encoder = tiny_adapter().encoder;
  const auto packed = [](float scale) {
    const at::Tensor values = (at::ones({width, width}) * 3).to(at::kChar);
    return std::make_shared<const ops::PackedWeight>(ops::pack_int8_rows(values, at::ones({width}) * scale));
  };
  encoder.layers[0].output = {{}, {}, packed(1)};
  const base::Digest one = encoder_fingerprint(encoder);
  encoder.layers[0].output.packed = packed(2);
  EXPECT_NE(encoder_fingerprint(encoder), one);
}

}  // namespace
}  // namespace cepe::context
