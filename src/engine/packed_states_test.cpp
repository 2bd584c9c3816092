// Contexts whose states stay in 8 bits, with weights of keys and values in 8 bits.
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "engine_bench.h"
#include "model/packed_context.h"
#include "ops/int8_rows.h"
#include "ops/quantise.h"

namespace cepe::engine {
namespace {

model::CepeModel model_in_8_bits() {
  const test::TinyShape shape = {.encoder_width = 64};
  model::CepeModel model = test::tiny_model(41, shape);
  for (auto& block : model.adapter->cross_attention) {
    if (!block) continue;
    for (model::Linear* linear : {&block->key, &block->value}) {
      const ops::PackedWeight rows = ops::quantise(linear->weight, ops::PackedFormat::int8_row);
      *linear = {{}, {}, std::make_shared<const ops::PackedWeight>(rows)};
    }
  }
  return model;
}

struct PackedStates : testing::Test, test::EngineBench {
  PackedStates() : EngineBench(model_in_8_bits()) {}

  model::ContextStates packed(int64_t tokens) {
    model::ContextStates context;
    for (const at::Tensor& page : states(ids(tokens)).pages) context.append(ops::int8_rows(page));
    return context;
  }
  EngineOptions keeping(int64_t bytes) const {
    EngineOptions options;
    options.kept_bytes = bytes;
    return options;
  }
};

TEST_F(PackedStates, KeysAndValuesAreThoseOfTheUnpackedStatesButForOneRounding) {
  model::ContextStates exact = packed(29);  // few enough for products in float32
  const std::vector<at::Tensor> pages = exact.pages;
  const std::vector<const model::CrossAttention*> blocks = model::cross_attention_blocks(model);
  const model::HeadShape shape = model::head_shape(model.decoder.config);
  model::keep_projections(exact, blocks, shape, at::kFloat);  // unpacks them
  ASSERT_EQ(exact.kept.size(), 2U);
  const auto expect_near = [](const at::Tensor& found, const at::Tensor& expected) {
    ASSERT_EQ(found.sizes(), expected.sizes());
    const at::Tensor off = (found.to(at::kFloat) - expected).abs();
    EXPECT_TRUE((off <= expected.abs() / 256 + 1e-5).all().item<bool>()) << off.max();
  };
  size_t layer = 0;
  for (const model::CrossAttention* block : blocks) {
    if (!block) continue;
    const at::Tensor both = model::project_packed(*block, pages);
    const model::ContextStates::Projected& expected = exact.kept[layer++];
    const int64_t width = shape.groups * shape.width;
    expect_near(both.narrow(1, 0, width), expected.keys.flatten(1));
    expect_near(both.narrow(1, width, width), expected.values.flatten(1));
  }
  EXPECT_EQ(layer, 2U);
}

// The form in which a chunk is handed out is the processor's choice; what it stands for is not.
TEST_F(PackedStates, AreHandedOutAsTheyAreKeptWhereTheyAreReadSo) {
  const std::vector<context::Chunk> chunks = context::split(ids(21), 8, 0);
  const model::ContextStates exact = store.get_or_encode(chunks);
  context::StoreOptions options;
  options.type = context::StateType::int8;
  options.host_bytes = 1 << 20;
  context::ContextStore packing(*model.adapter, options);
  EXPECT_TRUE(model::prefers_packed_pages(*model.adapter));
  for (int repeat = 0; repeat < 2; ++repeat) {
    const model::ContextStates found = packing.get_or_encode(chunks);
    EXPECT_EQ(packing.counters().encoded, 3);
    EXPECT_EQ(packing.counters().host.bytes, 21 * (64 + 4));
    for (size_t i = 0; i < found.pages.size(); ++i) {
      EXPECT_TRUE(ops::is_int8_rows(found.pages[i]));
      const at::Tensor expected = ops::unpacked_rows(ops::int8_rows(exact.pages[i]));
      EXPECT_TRUE(model::dense_pages(found).pages[i].equal(expected)) << "page " << i;
    }
  }
}

TEST_F(PackedStates, AnswerAlikeKeptAndNotAndAreUnpackedOnceWhereTheyAreNot) {
  Engine kept(model, tokenizer, keeping(int64_t{1} << 30)), read(model, tokenizer, keeping(0));
  const model::ContextStates context = packed(45);
  Request request = this->request(9, 12);
  request.context = kept.prepare(context);
  ASSERT_EQ(request.context->kept.size(), 2U);
  EXPECT_EQ(request.context->kept.front().type(), at::kByte);
  EXPECT_TRUE(ops::is_int8_rows(request.context->pages.front()));
  const Completion with_kept = kept.generate(request);
  request.context = read.prepare(context);
  EXPECT_TRUE(request.context->kept.empty());
  EXPECT_EQ(request.context->pages.size(), context.pages.size());
  EXPECT_EQ(request.context->pages.front().scalar_type(), at::kBFloat16);
  const Completion with_states = read.generate(request);
  for (size_t t = 0; t < 3; ++t) {
    EXPECT_NEAR(with_kept.log_probabilities[t][0].log_probability, with_states.log_probabilities[t][0].log_probability,
                0.05);
  }
}

// K and V in 8 bits of whatever states: who else asks changes nothing, bit for bit where that is promised.
TEST_F(PackedStates, KeysAndValuesIn8BitsAnswerBesideOthersAsAlone) {
  for (const bool invariant : {false, true}) {
    EngineOptions options = keeping(int64_t{1} << 30);
    options.kept_type = KeptType::int8;
    options.batch_invariant = invariant;
    Engine engine(model, tokenizer, options);
    const std::vector<Request> requests = this->requests(engine);
    EXPECT_EQ(requests[1].context->kept.front().type(), at::kByte);
    const std::vector<Completion> together = test::run_together(engine, requests, 1);
    for (size_t i = 0; i < requests.size(); ++i) {
      SCOPED_TRACE(i);
      test::expect_close(together[i], engine.generate(requests[i]), invariant ? 0 : 1e-3);
    }
  }
}

TEST_F(PackedStates, AreAddedToAContextThatGrowsKeptAndNot) {
  model.decoder.config.max_positions = 40;
  for (const KeptType type : {KeptType::automatic, KeptType::bfloat16}) {
    const int64_t just_enough = kept_form(model, packed(45), type).bytes;  // until it grows
    for (const int64_t bytes : {int64_t{1} << 30, int64_t{0}, just_enough}) {
      EngineOptions settings = keeping(bytes);
      settings.kept_type = type;
      Engine engine(model, tokenizer, settings);
      Request request = this->request(10, 52);
      request.context = engine.prepare(packed(45));
      EXPECT_EQ(request.context->kept.empty(), bytes == 0);
      context::StoreOptions options;
      options.type = context::StateType::int8;
      context::ContextStore packing(*model.adapter, options);
      request.endless = {&packing, 1, 0};
      EXPECT_EQ(engine.generate(request).tokens.size(), 52U);
    }
  }
}

}  // namespace
}  // namespace cepe::engine
