// A cache in blocks gives what one in a row gives, wherever the blocks lie.
#include "model/paged_cache.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"
#include "golden_tensors.h"
#include "model/attention.h"
#include "model/cepe_model.h"
#include "ops/int8_rows.h"
#include "tiny_models.h"

namespace cepe::model {
namespace {

constexpr int64_t block_rows = 4;

struct PagedCache : testing::Test {
  const at::NoGradGuard none;
  CepeModel model = test::tiny_model(31);
  test::TinyWeights random{32};

  // Everything that was never written is NaN: to read it shows.
  static KvCache cache_of(int64_t slots) {
    KvCache cache = make_kv_cache(3, slots, 2, 8, at::kFloat);
    for (auto* tensors : {&cache.keys, &cache.values})
      for (at::Tensor& tensor : *tensors) tensor.fill_(std::numeric_limits<float>::quiet_NaN());
    return cache;
  }
  std::vector<int32_t> ids(int64_t count) {
    const at::Tensor drawn = random.tokens({count}, 96).to(at::kInt);
    return {drawn.const_data_ptr<int32_t>(), drawn.const_data_ptr<int32_t>() + count};
  }
  // Hidden rows of `tokens` in pieces of the given sizes.
  at::Tensor paged(const std::vector<int32_t>& tokens, const std::vector<int32_t>& blocks, KvCache& cache,
                   const std::vector<int64_t>& sizes, bool by_block = false) {
    std::vector<at::Tensor> hidden;
    int64_t cached = 0;
    for (const int64_t size : sizes) {
      const PagedPiece piece = {std::span(tokens).subspan(cached, size), cached, blocks};
      BatchLayout layout = paged_layout({&piece, 1}, block_rows, at::kCPU);
      layout.by_block = by_block;
      hidden.push_back(forward(model.decoder, layout, &cache));
      cached += size;
    }
    return at::cat(hidden, 0);
  }
};

TEST_F(PagedCache, EqualsAContiguousOneWhereverTheBlocksLie) {
  const std::vector<int32_t> tokens = ids(15);
  KvCache straight = cache_of(16);
  const at::Tensor expected = paged(tokens, {0, 1, 2, 3}, straight, {15});
  for (const std::vector<int32_t>& blocks : {std::vector<int32_t>{0, 1, 2, 3}, {3, 1, 2, 0}, {5, 6, 1, 2}}) {
    for (const std::vector<int64_t>& sizes : {std::vector<int64_t>{15}, {6, 9}, {3, 1, 1, 5, 1, 4}}) {
      for (const bool by_block : {false, true}) {
        KvCache cache = cache_of(28);
        EXPECT_LE(test::distance(paged(tokens, blocks, cache, sizes, by_block), expected), 3e-6);
      }
    }
  }
}

TEST_F(PagedCache, ReadBlockByBlockThePlacesOfTheBlocksChangeNoBit) {
  const std::vector<int32_t> tokens = ids(15);
  const std::vector<int64_t> sizes = {9, 1, 1, 1, 1, 1, 1};
  KvCache straight = cache_of(16), scattered = cache_of(28);
  EXPECT_TRUE(
      paged(tokens, {0, 1, 2, 3}, straight, sizes, true).equal(paged(tokens, {6, 2, 5, 0}, scattered, sizes, true)));
}

TEST_F(PagedCache, AWindowOverBlocksSeesItsLastRowsOnly) {
  model.decoder.config.windows = {5, 0, 3};
  const std::vector<int32_t> tokens = ids(14);
  KvCache straight = cache_of(16), scattered = cache_of(20);
  const at::Tensor expected = paged(tokens, {0, 1, 2, 3}, straight, {14});
  EXPECT_LE(test::distance(paged(tokens, {4, 1, 3, 0}, scattered, {2, 7, 1, 1, 1, 1, 1}), expected), 3e-6);
}

TEST_F(PagedCache, SequencesOfABatchKeepToTheirOwnBlocks) {
  const std::vector<std::vector<int32_t>> tokens = {ids(9), ids(1), ids(6)};
  const std::vector<std::vector<int32_t>> blocks = {{4, 0, 2}, {1}, {3, 5}};
  std::vector<PagedPiece> pieces;
  for (size_t i = 0; i < tokens.size(); ++i) pieces.push_back({tokens[i], 0, blocks[i]});
  KvCache cache = cache_of(24);
  const at::Tensor batched = forward(model.decoder, paged_layout(pieces, block_rows, at::kCPU), &cache);
  int64_t first = 0;
  for (const auto& own : tokens) {
    KvCache straight = cache_of(12);
    const auto count = static_cast<int64_t>(own.size());
    EXPECT_LE(test::distance(batched.narrow(0, first, count), paged(own, {0, 1, 2}, straight, {count})), 3e-6);
    first += count;
  }
}

TEST_F(PagedCache, ABlockTableTooShortOrBeyondTheCacheIsRefused) {
  const std::vector<int32_t> tokens = ids(8);
  KvCache cache = cache_of(8);
  EXPECT_THROW(paged(tokens, {0, 2}, cache, {8}), base::Error);
  BatchLayout layout = single_layout(random.tokens({8}, 96), 0);
  layout.block_rows = block_rows;
  layout.sequences.front().blocks = {1};
  EXPECT_THROW(forward(model.decoder, layout, &cache), base::Error);
}

// One layer, by hand: the softmax over all rows at once, added up by page.
TEST_F(PagedCache, MassesOfPagesAreTheirShareOfTheDirectSoftmax) {
  const HeadShape shape = head_shape(model.decoder.config);
  const CrossAttention& block = *model.adapter->cross_attention[1];
  ContextStates context;
  for (const int64_t rows : {3, 8, 1}) context.append(at::empty({rows, 24}).normal_());
  const at::Tensor hidden = at::empty({5, 32}).normal_();
  const BatchLayout layout = single_layout(random.tokens({5}, 96), 0);
  const at::Tensor query = forward(block.query, forward(block.norm, hidden.narrow(0, 4, 1))).reshape({4, 8});
  const at::Tensor keys = forward(block.key, at::cat(context.pages, 0)).reshape({12, 2, 8});
  at::Tensor expected = at::zeros({12});
  for (int64_t head = 0; head < 4; ++head)
    expected += at::softmax(at::matmul(keys.select(1, head / 2), query[head]) / std::sqrt(8.0), 0) / 4;
  for (const bool kept : {false, true}) {
    if (kept) keep_projections(context, std::vector<const CrossAttention*>{&block}, shape, at::kFloat);
    ContextMass mass;
    const CrossAttentionInput input = {{&block}, {&context}, CrossAttentionPath::automatic, {}, {&mass}};
    forward(block, forward(block.norm, hidden), layout, input, shape, 0);
    ASSERT_EQ(mass.layers, 1);
    const at::Tensor parts =
        at::stack({expected.narrow(0, 0, 3).sum(), expected.narrow(0, 3, 8).sum(), expected[11]}, 0);
    EXPECT_LE(test::distance(mass.sum, parts), 1e-5) << kept;
    EXPECT_NEAR(mass.sum.sum().item<double>(), 1, 1e-5);
  }
}

TEST(KvCache, GrowsInTheLayoutThatItsKernelsTake) {
  for (const int64_t groups : {1, 2, 3}) {
    for (const at::ScalarType type : {at::kByte, at::kBFloat16}) {
      KvCache cache = make_kv_cache(1, 4, groups, 16, type);
      at::Tensor& keys = cache.keys.front();
      keys.fill_(7);
      const at::Tensor larger = with_slots(keys, 9);
      EXPECT_EQ(larger.size(0), 9);
      EXPECT_EQ(larger.strides(), keys.strides());
      EXPECT_TRUE(larger.narrow(0, 0, 4).equal(keys));
      EXPECT_EQ(ops::is_int8_heads(larger, groups, 16), type == at::kByte) << groups;
    }
  }
}

}  // namespace
}  // namespace cepe::model
