// What an engine gives whose decoding goes by tables, as on a GPU, against one whose passes go by the host's numbers.
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "engine_bench.h"

namespace cepe::engine {
namespace {

using test::run_together;

struct StepsByTables : testing::Test, test::EngineBench {
  static EngineOptions options(bool by_tables) {
    EngineOptions options;
    options.prefill_rows = 16;
    options.steps_by_tables_on_cpu = by_tables;
    return options;
  }
  static void expect_the_same(const std::vector<Completion>& found, const std::vector<Completion>& expected,
                              double tolerance) {
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) {
      EXPECT_EQ(found[i].tokens, expected[i].tokens) << i;
      ASSERT_EQ(found[i].log_probabilities.size(), expected[i].log_probabilities.size());
      for (size_t t = 0; t < found[i].log_probabilities.size(); ++t)
        EXPECT_NEAR(found[i].log_probabilities[t][0].log_probability,
                    expected[i].log_probabilities[t][0].log_probability, tolerance)
            << i << " " << t;
    }
  }
};

TEST_F(StepsByTables, AnswersAreTheSame) {
  for (const int64_t kept_bytes : {int64_t{0}, int64_t{1} << 30}) {
    EngineOptions with = options(true), without = options(false);
    with.kept_bytes = without.kept_bytes = kept_bytes;
    Engine engine(model, tokenizer, with), usual(model, tokenizer, without);
    const std::vector<Request> requests = this->requests(engine);
    for (const int between : {0, 2})
      expect_the_same(run_together(engine, requests, between), run_together(usual, requests, between), 1e-4);
    EXPECT_GT(engine.counters().steps_by_tables, 20);
    EXPECT_EQ(usual.counters().steps_by_tables, 0);
  }
}

TEST_F(StepsByTables, AlsoWhereBlocksAreShortAndTheCacheGrows) {
  EngineOptions with = options(true), without = options(false);
  with.cache_rows = without.cache_rows = 256;
  Engine engine(model, tokenizer, with), usual(model, tokenizer, without);
  const std::vector<Request> requests = {request(40, 60), request(50, 60), request(30, 60)};
  expect_the_same(run_together(engine, requests, 1), run_together(usual, requests, 1), 1e-4);
  EXPECT_GT(engine.counters().preemptions, 0);
  EXPECT_EQ(engine.generate(request(100, 156)).tokens.size(), 156U) << "the block of padding is not taken from anyone";
}

TEST_F(StepsByTables, BatchInvariantTheyAreTheSameBitForBit) {
  EngineOptions settings = options(true);
  settings.batch_invariant = true;
  std::vector<Request> requests = this->requests(Engine(model, tokenizer, settings));
  for (const int64_t prompt : {40, 49, 30}) requests.push_back(request(prompt, 60));  // a block each, then a second
  EngineOptions few_blocks = settings;
  few_blocks.cache_rows = 256;
  Engine engine(model, tokenizer, settings), crowded(model, tokenizer, few_blocks);
  const std::vector<Completion> together = run_together(engine, requests, 1),
                                in_turns = run_together(crowded, requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    Engine alone(model, tokenizer, settings);
    const Completion expected = alone.generate(requests[i]);
    expect_the_same({together[i], in_turns[i]}, {expected, expected}, 0);
  }
  EXPECT_GT(crowded.counters().preemptions, 0) << "also where blocks were lost in between";
}

// On a GPU steps and passes do not give the same bits: a row that is read again has to go the way it went before.
TEST_F(StepsByTables, RowsThatAreReadAgainGoByTablesToo) {
  EngineOptions settings = options(true);
  settings.batch_invariant = true;
  settings.cache_rows = 256;
  Engine crowded(model, tokenizer, settings);
  run_together(crowded, {request(1, 100), request(1, 100), request(1, 100)});
  EXPECT_GT(crowded.counters().preemptions, 0);
  EXPECT_EQ(crowded.counters().steps_by_tables, crowded.counters().steps);
}

TEST_F(StepsByTables, ShortTextsGoByTablesLongOnesDoNot) {
  EngineOptions with = options(true), without = options(false);
  with.prefill_rows = without.prefill_rows = 200;
  Engine engine(model, tokenizer, with), usual(model, tokenizer, without);
  std::vector<Request> asked = {request(60, 4), request(12, 4), request(1, 4)};
  expect_the_same(run_together(engine, asked), run_together(usual, asked), 1e-4);
  EXPECT_EQ(engine.counters().steps_by_tables, engine.counters().steps);
  EXPECT_EQ(engine.counters().steps, 4) << "all in the first, then a token each";
  asked = {request(130, 4), request(12, 4)};
  const int64_t before = engine.counters().steps - engine.counters().steps_by_tables;
  expect_the_same(run_together(engine, asked), run_together(usual, asked), 1e-4);
  EXPECT_EQ(engine.counters().steps - engine.counters().steps_by_tables - before, 1) << "that of the long one";
}

TEST_F(StepsByTables, NoMoreTextsAtOnceThanAStepShouldRead) {
  const auto passes_of = [&](const std::vector<int64_t>& prompts) {
    EngineOptions settings = options(true);
    settings.prefill_rows = 200;
    Engine engine(model, tokenizer, settings);
    std::vector<Request> asked;
    asked.reserve(prompts.size());
    for (const int64_t prompt : prompts) asked.push_back(request(prompt, 2));
    run_together(engine, asked);
    return engine.counters().steps - engine.counters().steps_by_tables;
  };
  EXPECT_EQ(passes_of({50, 50}), 0);
  EXPECT_EQ(passes_of({50, 50, 50}), 1) << "more rows than a step takes of texts";
  EXPECT_EQ(passes_of({90}), 0);
  EXPECT_EQ(passes_of({92}), 1) << "91 * 92 rows would be read again";
}

// A step reads K and V of its contexts only where it reads those of all.
TEST_F(StepsByTables, ATextBesideAContextOfTheOtherKindGoesByItself) {
  const auto passes_of = [&](bool first_kept, bool second_kept) {
    EngineOptions settings = options(true), keeping = settings;
    settings.prefill_rows = 200;
    settings.kept_bytes = 0;
    keeping.kept_bytes = int64_t{1} << 30;
    Engine engine(model, tokenizer, settings);
    const auto context = [&](bool keeps) {
      return Engine(model, tokenizer, keeps ? keeping : settings).prepare(states(ids(30)));
    };
    std::vector<Request> asked = {request(1, 8), request(3, 2)};
    asked[0].context = context(first_kept);
    asked[1].context = context(second_kept);
    run_together(engine, asked, 2);
    return engine.counters().steps - engine.counters().steps_by_tables;
  };
  EXPECT_EQ(passes_of(true, true), 0);
  EXPECT_EQ(passes_of(false, false), 0);
  EXPECT_EQ(passes_of(true, false), 1);
  EXPECT_EQ(passes_of(false, true), 1);
}

TEST_F(StepsByTables, SeveralAnswersAndWindowsThatSlide) {
  std::vector<Request> asked(2);
  asked[0] = request(20, 30);
  asked[0].samples = 3;
  asked[0].sampling.temperature = 0.9;
  asked[1] = request(20, 60);
  asked[1].endless = {&store, 1, 32};
  for (const Request& one : asked) {
    Engine engine(model, tokenizer, options(true)), usual(model, tokenizer, options(false));
    expect_the_same(engine.generate_samples(one), usual.generate_samples(one), 1e-4);
    EXPECT_GT(engine.counters().steps_by_tables, 20);
  }
}

}  // namespace
}  // namespace cepe::engine
