// The store where states live on a GPU: an arena there, pinned host memory, the disk. On a CPU (CEPE_GPU=cpu) the pages
// handed out are those that are kept.
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <unistd.h>

#include <thread>

#include "context/context_store.h"
#include "disk_records.h"
#include "distance.h"
#include "gpu.h"
#include "tiny_models.h"

namespace cepe::context {
namespace {

constexpr int64_t width = 64;

class StoreOnGpu : public test::OnGpu {
 protected:
  base::Path folder_ = test::quick_folder() / ("cepe-gpu-store-" + std::to_string(::getpid()));

  void SetUp() override {
    OnGpu::SetUp();
    if (!test::gpu().device) return;
    test::TinyShape shape;
    shape.encoder_width = width, shape.encoder_heads = 2, shape.encoder_groups = 1, shape.encoder_head_width = 32;
    adapter_ = test::with_values(test::tiny_model(5, shape), at::TensorOptions(device()).dtype(at::kBFloat16)).adapter;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  const model::Adapter& adapter() const { return *adapter_; }
  std::vector<Chunk> chunks(int64_t tokens) {
    const at::Tensor drawn = random_.tokens({tokens}, 96);
    const std::vector<text::Token> ids(drawn.const_data_ptr<int64_t>(), drawn.const_data_ptr<int64_t>() + tokens);
    return split(ids, adapter().chunk_size, 0);
  }
  static void expect_same(const model::ContextStates& found, const model::ContextStates& expected) {
    ASSERT_EQ(found.pages.size(), expected.pages.size());
    for (size_t i = 0; i < found.pages.size(); ++i) {
      EXPECT_EQ(found.pages[i].device(), device());
      EXPECT_TRUE(at::equal(found.pages[i], expected.pages[i])) << "page " << i;
    }
  }

 private:
  std::optional<model::Adapter> adapter_;
  test::TinyWeights random_{9};
};

TEST_F(StoreOnGpu, EveryTierHandsOutTheSameStates) {
  const std::vector<Chunk> asked = chunks(300);
  for (const StateType type : {StateType::bfloat16, StateType::int8}) {
    StoreOptions disk, host, arena;
    disk.folder = folder_;
    host.host_bytes = arena.host_bytes = arena.device_bytes = int64_t{1} << 20;
    disk.type = host.type = arena.type = type;
    const model::ContextStates first = ContextStore(adapter(), disk).get_or_encode(asked);
    ContextStore again(adapter(), disk);
    expect_same(again.get_or_encode(asked), first);
    EXPECT_EQ(again.counters().disk.hits, static_cast<int64_t>(asked.size()));
    for (const StoreOptions& options : {host, arena}) {
      ContextStore store(adapter(), options);
      for (int repeat = 0; repeat < 2; ++repeat) expect_same(store.get_or_encode(asked), first);
      EXPECT_EQ(store.counters().encoded, static_cast<int64_t>(asked.size()));
    }
  }
}

TEST_F(StoreOnGpu, PagesOfTheArenaAreReusedOnlyOnceNobodyHoldsThem) {
  StoreOptions options;
  options.device_bytes = int64_t{3} * 8 * width * 2;
  ContextStore store(adapter(), options);
  const std::vector<Chunk> asked = chunks(80);
  const model::ContextStates held = store.get_or_encode(std::span(asked).first(2));
  std::vector<at::Tensor> copies;
  for (const at::Tensor& page : held.pages) copies.push_back(page.clone());
  for (size_t i = 2; i < asked.size(); ++i) store.get_or_encode(std::span(asked).subspan(i, 1));
  const model::ContextStates all = store.get_or_encode(asked);  // more than the arena has
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_TRUE(at::equal(held.pages[i], copies[i]));
    EXPECT_TRUE(at::equal(all.pages[i], copies[i]));
  }
}

TEST_F(StoreOnGpu, ManyThreadsAskForTheSame) {
  const std::vector<Chunk> asked = chunks(320);
  const model::ContextStates expected = ContextStore(adapter(), {}).get_or_encode(asked);
  StoreOptions options;
  options.chunks_per_batch = 3;
  options.host_bytes = int64_t{1} << 20;
  options.device_bytes = int64_t{10} * 8 * width * 2;  // a quarter of them
  ContextStore store(adapter(), options);
  std::vector<model::ContextStates> found(6);
  std::vector<std::thread> threads;
  for (size_t n = 0; n < found.size(); ++n)
    threads.emplace_back([&, n] { found[n] = store.get_or_encode(std::span(asked).subspan(n * 4, 20)); });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(store.counters().encoded, 40);
  for (size_t n = 0; n < found.size(); ++n)
    for (size_t i = 0; i < 20; ++i)
      EXPECT_LE(test::distance(found[n].pages[i], expected.pages[n * 4 + i]), 2e-2)
          << "thread " << n << ", chunk " << i;
}

}  // namespace
}  // namespace cepe::context
