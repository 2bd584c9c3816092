// A step by tables gives what passes by host numbers give, sequence by sequence. On the CPU, where nothing is recorded:
// the arithmetic and the tables are the same (batch_step_gpu_test.cpp).
#include "base/error.h"
#include "batch_step_bench.h"
#include "ops/int8_rows.h"

namespace cepe::model {
namespace {

struct BatchSteps : testing::Test, test::BatchStepBench {};

TEST_F(BatchSteps, OneSequenceWithoutAContext) { expect_the_same({text(9, 5, 1, nullptr)}); }

TEST_F(BatchSteps, DifferentLengthsBlocksAndContexts) {
  const ContextStates long_one = states({8, 8, 3}), short_one = states({5});
  expect_the_same({text(3, 40, -1, nullptr), text(17, 0, 2, &short_one), text(8, 1, 2, &long_one),
                   text(1, 20, 1, &long_one), text(30, 25, 1, &long_one)});
}

TEST_F(BatchSteps, KeptContextsSharedAndNot) {
  const ContextStates one = kept(states({8, 8, 3})), other = kept(states({300}));
  expect_the_same({text(4, 0, 1, &one), text(5, 10, 1, &one), text(6, 20, 1, nullptr), text(7, 30, 1, &other)});
}

TEST_F(BatchSteps, WhereOnlySomeAreKeptTheStatesAreRead) {
  const ContextStates one = kept(states({8, 2})), other = states({7});
  expect_the_same({text(4, 0, 1, &one), text(5, 10, 1, &other)});
}

TEST_F(BatchSteps, ShortTextsAsRows) {
  const ContextStates one = states({8, 8, 3}), other = kept(states({300}));
  expect_the_same_prompts({text(9, 5, 1, nullptr)});
  expect_the_same_prompts({text(9, 5, 1, &one), text(1, 20, 1, &one), text(17, 30, 1, nullptr)});
  expect_the_same_prompts({text(9, 5, 1, &other), text(17, 30, 1, &other)});
}

TEST_F(BatchSteps, RowsOfOneTextTogetherOnlyWhereNoOtherWayIsCheaper) {
  const ContextStates one = states({300}), with_kept = kept(one);
  const HeadShape shape = head_shape(model.decoder.config);
  const int64_t few = 2, many = 2000;
  ASSERT_EQ(cheapest(cost_of(one, few, shape)), CheapestPath::absorbed);
  ASSERT_EQ(cheapest(cost_of(one, many, shape)), CheapestPath::projected);
  EXPECT_TRUE(BatchStep::takes_together(model, one, few));
  EXPECT_FALSE(BatchStep::takes_together(model, one, many));
  EXPECT_TRUE(BatchStep::takes_together(model, one, many, CrossAttentionPath::absorbed));
  EXPECT_TRUE(BatchStep::takes_together(model, with_kept, many));
  EXPECT_TRUE(BatchStep::takes_together(model, {}, many));
  ContextStates packed;
  packed.append(ops::int8_rows(one.pages.front()));
  EXPECT_FALSE(BatchStep::takes_together(model, packed, many, CrossAttentionPath::absorbed));
}

TEST_F(BatchSteps, StatesIn8BitsAreReadAsTheyAreButNotBesideOthers) {
  const auto packed = [&](const std::vector<int64_t>& pages) {
    ContextStates result;
    for (const at::Tensor& page : states(pages).pages) result.append(ops::int8_rows(page));
    return result;
  };
  const ContextStates one = packed({8, 8, 3}), other = packed({5}), dense = states({8});
  expect_the_same({text(9, 5, 1, nullptr), text(4, 0, 2, &one), text(6, 20, 1, &one), text(7, 25, 1, &other)});
  EXPECT_THROW(expect_the_same({text(9, 5, 1, &one), text(4, 0, 2, &dense)}), base::Error);
}

TEST_F(BatchSteps, MassesOfPagesSharedAndNotKeptAndNot) {
  for (const bool keeps : {false, true}) {
    ContextStates one = states({8, 8, 3}), other = states({300, 2});
    if (keeps) one = kept(one), other = kept(other);
    const std::vector<Text> texts = {text(4, 0, 1, &one), text(5, 10, 1, &one), text(6, 20, 1, nullptr),
                                     text(7, 30, 1, &other), text(8, 40, 1, &other)};
    for (const size_t asking : {size_t{0}, size_t{1}, size_t{3}, size_t{5}}) expect_the_same_masses(texts, asking);
  }
}

TEST_F(BatchSteps, MassesOfMorePagesThanOneCallTakes) {
  const ContextStates context = states(std::vector<int64_t>(1100, 1));
  expect_the_same_masses({text(4, 0, 1, &context)}, 1);
}

TEST_F(BatchSteps, WhoAsksForMassesMayChangeFromStepToStep) {
  const ContextStates one = states({8, 2}), other = states({8, 2});
  KvCache kv = cache();
  const std::vector<Text> texts = {text(4, 0, 1, &one), text(5, 10, 1, &other)};
  for (const Text& text : texts) usual(text, 0, text.prompt, kv);
  BatchStep step(model, kv, block_rows, padding);
  std::vector<at::Tensor> found;
  for (const size_t asks : {size_t{0}, size_t{1}, size_t{0}}) {
    std::vector<BatchStep::Row> rows = rows_at(texts, 0);
    rows[asks].asks_masses = true;
    step.logits(at::full({2}, 3, at::kLong), rows);
    found.push_back(step.page_masses().clone());
  }
  EXPECT_EQ(step.sizes(), 1);
  EXPECT_GT(test::distance(found[0], found[1]), 1e-3);
  EXPECT_LE(test::distance(found[0], found[2]), 1e-5);
}

TEST_F(BatchSteps, ContextsOfABatchMayChangeFromStepToStep) {
  const ContextStates one = states({8, 2}), other = states({8, 2});
  KvCache kv = cache(), same = cache();
  Text first = text(4, 0, 1, &one), second = text(5, 10, 1, &other);
  for (const Text& text : {first, second}) {
    usual(text, 0, text.prompt, kv);
    usual(text, 0, text.prompt, same);
  }
  BatchStep step(model, kv, block_rows, padding);
  for (int turn = 0; turn < 4; ++turn) {  // as many pages each time: the same tables
    const at::Tensor tokens = random.tokens({2}, 96);
    std::swap(first.context, second.context);
    const at::Tensor found = step.logits(tokens, rows_at({first, second}, 0));
    first.ids[4] = static_cast<int32_t>(tokens[0].item<int64_t>());
    second.ids[5] = static_cast<int32_t>(tokens[1].item<int64_t>());
    EXPECT_LE(test::distance(found.narrow(0, 0, 1), usual(first, 4, 5, same)), 1e-5);
    EXPECT_LE(test::distance(found.narrow(0, 1, 1), usual(second, 5, 6, same)), 1e-5);
  }
  EXPECT_EQ(step.sizes(), 1);
}

TEST_F(BatchSteps, LogitsOfTheRowsThatAskAlone) {
  const ContextStates context = states({8, 2});
  const std::vector<Text> texts = {text(9, 0, 3, &context), text(5, 10, 1, nullptr)};
  const at::Tensor tokens = random.tokens({2}, 96);
  const auto found = [&](const std::vector<bool>& asks) {
    KvCache kv = cache();
    for (const Text& text : texts) usual(text, 0, text.prompt, kv);
    BatchStep step(model, kv, block_rows, padding);
    std::vector<BatchStep::Row> rows = rows_at(texts, 0);
    for (size_t i = 0; i < rows.size(); ++i) rows[i].asks_logits = asks[i];
    return step.logits(tokens, rows);
  };
  const at::Tensor all = found({true, true});
  EXPECT_LE(test::distance(found({false, true}), all.narrow(0, 1, 1)), 1e-5);  // by a product of one row
  EXPECT_LE(test::distance(found({true, false}), all.narrow(0, 0, 1)), 1e-5);
  EXPECT_EQ(found({false, false}).size(0), 0);
}

TEST_F(BatchSteps, WhatFillsABatchTouchesNothing) {
  KvCache kv = cache();
  for (auto* tensors : {&kv.keys, &kv.values})
    for (at::Tensor& tensor : *tensors) tensor.fill_(7);
  std::vector<Text> texts;
  texts.reserve(5);
  for (int32_t i = 0; i < 5; ++i) texts.push_back(text(1, i * 3, 1, nullptr));  // filled up to six
  BatchStep step(model, kv, block_rows, padding);
  step.logits(random.tokens({5}, 96), rows_at(texts, 0));
  for (int64_t slot = 0; slot < padding; ++slot) {
    const bool written = slot % (3 * block_rows) == 1 && slot / (3 * block_rows) < 5;
    EXPECT_EQ((kv.keys.back()[slot] == 7).all().item<bool>(), !written) << slot;
  }
}

TEST_F(BatchSteps, ARowOutsideItsBlocksOrTheCacheIsRefused) {
  KvCache kv = cache();
  BatchStep step(model, kv, block_rows, padding);
  const std::vector<int32_t> inside = {3}, outside = {blocks};
  const auto step_at = [&](int64_t position, std::span<const int32_t> own) {
    const std::vector<BatchStep::Row> rows = {{position, own, nullptr}};
    return step.logits(random.tokens({1}, 96), rows);
  };
  EXPECT_NO_THROW(step_at(3, inside));
  EXPECT_THROW(step_at(4, inside), base::Error);
  EXPECT_THROW(step_at(-1, inside), base::Error);
  EXPECT_THROW(step_at(0, outside), base::Error);
  EXPECT_THROW(step.logits(random.tokens({2}, 96), {}), base::Error);
}

TEST_F(BatchSteps, SlidingWindowsAreNotTaken) {
  const KvCache kv = cache();
  EXPECT_TRUE(BatchStep::takes(model, kv));
  model.decoder.config.windows.back() = 16;
  EXPECT_FALSE(BatchStep::takes(model, kv));
}

}  // namespace
}  // namespace cepe::model
