// What fails in a step: whose it is ends, the others are answered as if alone, and everything comes to an end.
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "engine/engine.h"
#include "engine_bench.h"
#include "expect_error.h"
#include "ops/int8_rows.h"
#include "refused_allocation.h"
#include "short_memory.h"

namespace cepe::engine {
namespace {

// No memory for a cache's tensors of at least `rows` rows. What is not of whole blocks is none of them.
struct ShortMemory : test::ShortMemory {
  ShortMemory(int64_t row_bytes, int64_t rows, int64_t spared = 0,
              int64_t refused = std::numeric_limits<int64_t>::max())
      : test::ShortMemory(row_bytes * rows, row_bytes * block_rows, spared, refused) {}
};

// What is refused memory is told so in plain words; counts how often.
template <class Work>
void expect_told_plainly(const Work& work, int& told) {
  try {
    work();
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), base::ErrorCode::out_of_memory);
    EXPECT_EQ(std::string(error.what()).find("Exception raised"), std::string::npos) << error.what();
    ++told;
  } catch (const std::exception& error) {
    FAIL() << error.what();
  }
}

struct Failures : testing::Test, test::EngineBench {
  struct Outcome {
    std::vector<std::optional<Finish>> finishes;
    std::vector<size_t> tokens;
    std::string error;  // the last
    int errors = 0;
  };
  int64_t row_bytes() const { return model.decoder.config.groups * model.decoder.config.head_width * 4; }
  int64_t cache_rows(const Engine& engine) const {
    return engine.counters().cache_bytes / model.decoder.config.layers / 2 / row_bytes();
  }

  // Runs them to their ends, through what steps throw.
  static Outcome run(Engine& engine, std::vector<Request> requests) {
    Outcome outcome;
    outcome.finishes.resize(requests.size());
    outcome.tokens.resize(requests.size());
    for (size_t i = 0; i < requests.size(); ++i) {
      requests[i].on_finish = [&outcome, i](const Completion& completion) {
        outcome.finishes[i] = completion.finish;
        outcome.tokens[i] += completion.tokens.size();
      };
      engine.submit(std::move(requests[i]));
    }
    for (int step = 0; step < 500; ++step) {
      try {
        if (!engine.step()) return outcome;
      } catch (const std::exception& failure) {
        ++outcome.errors;
        outcome.error = failure.what();
      }
    }
    ADD_FAILURE() << "no end: " << outcome.error;
    return outcome;
  }
};

TEST_F(Failures, ACacheThatCannotBeMadeEndsTheRequestWithTheFigures) {
  for (const bool tables : {false, true}) {
    EngineOptions options;
    options.steps_by_tables_on_cpu = tables;
    Engine engine(model, tokenizer, options);
    const ShortMemory memory(row_bytes(), block_rows);
    const Outcome outcome = run(engine, {request(50, 20)});
    EXPECT_EQ(outcome.finishes[0], Finish::cancelled);
    EXPECT_EQ(outcome.errors, 1);
    EXPECT_NE(outcome.error.find("there is memory for 0"), std::string::npos) << outcome.error;
  }
}

TEST_F(Failures, AllThatNoLongerFitAreEndedAtOnce) {
  EngineOptions options;
  options.prefill_rows = 61;
  options.cache_rows = 4096;
  Engine engine(model, tokenizer, options);
  engine.generate(request(10, 20));
  const ShortMemory memory(row_bytes(), cache_rows(engine) + 1);
  const Outcome outcome = run(engine, {request(400, 20), request(400, 20), request(20, 9)});
  EXPECT_EQ(outcome.finishes[0], Finish::cancelled);
  EXPECT_EQ(outcome.finishes[1], Finish::cancelled);
  EXPECT_EQ(outcome.finishes[2], Finish::length);
  EXPECT_EQ(outcome.tokens[2], 9u);
  EXPECT_EQ(outcome.errors, 1);
}

TEST_F(Failures, ACacheWhoseGrowthFailedHalfwayGrowsToWhatIsNeeded) {
  Request long_one = request(300, 20);
  const Completion alone = Engine(model, tokenizer).generate(long_one);
  for (const bool tables : {false, true}) {
    EngineOptions options;
    options.steps_by_tables_on_cpu = tables;
    Engine engine(model, tokenizer, options);
    engine.generate(request(10, 20));
    const ShortMemory memory(row_bytes(), 300, 1, 1);  // of the second layer's keys, once
    test::expect_close(engine.generate(long_one), alone, 1e-4);
  }
}

TEST_F(Failures, WithoutMemoryForAnAnswersBlocksTheOthersComeToTheirEnd) {
  EngineOptions options;
  options.prefill_rows = 200;
  options.cache_rows = 4096;
  Engine engine(model, tokenizer, options);
  engine.generate(request(200, 20));
  Request several = request(100, 20);
  several.samples = 4;
  several.sampling.temperature = 1;
  const ShortMemory memory(row_bytes(), cache_rows(engine) + 1);
  const Outcome outcome = run(engine, {request(30, 30), several, request(1, 400)});
  EXPECT_EQ(outcome.finishes[0], Finish::length);
  EXPECT_EQ(outcome.tokens[0], 30u);
  EXPECT_EQ(outcome.finishes[1], Finish::length);
  EXPECT_EQ(outcome.tokens[1], 80u);
  EXPECT_EQ(outcome.finishes[2], Finish::cancelled);
}

// A context whose K and V nobody kept, in an engine that reads nothing else.
TEST_F(Failures, ASequenceWhosePassFailsEndsAloneAndTheOthersAreAnswered) {
  const ContextPointer unkept = std::make_shared<const model::ContextStates>(states(ids(30)));
  const Request good = request(8, 30);
  for (const bool invariant : {false, true}) {
    EngineOptions options;
    options.path = model::CrossAttentionPath::kept;
    options.batch_invariant = invariant;
    Engine engine(model, tokenizer, options);
    Request bad = request(10, 60);
    bad.context = unkept;
    const Outcome outcome = run(engine, {good, bad, good});
    EXPECT_EQ(outcome.finishes[1], Finish::cancelled);
    EXPECT_EQ(outcome.errors, 1);
    for (const size_t i : {0, 2}) {
      EXPECT_EQ(outcome.finishes[i], Finish::length);
      EXPECT_EQ(outcome.tokens[i], 30u);
    }
  }
}

TEST_F(Failures, ASequenceOverDamagedStatesEndsAloneInsteadOfGoingOnWithAnyText) {
  model::ContextStates damaged = states(ids(30));
  damaged.pages[1] = damaged.pages[1].clone();
  damaged.pages[1][3][5] = std::numeric_limits<double>::quiet_NaN();
  using Path = model::CrossAttentionPath;
  for (const Path path : {Path::projected, Path::absorbed, Path::kept}) {
    for (const KeptType type : {KeptType::bfloat16, KeptType::int8}) {
      for (const int64_t log_probabilities : {-1, 2}) {
        EngineOptions options;
        options.path = path;
        options.kept_type = type;
        Engine engine(model, tokenizer, options);
        Request bad = request(10, 60), drawn = bad;
        bad.log_probabilities = drawn.log_probabilities = log_probabilities;
        bad.context = drawn.context = engine.prepare(damaged);
        drawn.sampling.temperature = 1;
        const Outcome outcome = run(engine, {request(8, 30), bad, drawn, request(8, 30)});
        for (const size_t i : {1, 2}) {
          EXPECT_EQ(outcome.finishes[i], Finish::cancelled);
          EXPECT_EQ(outcome.tokens[i], 0u);
        }
        EXPECT_NE(outcome.error.find("damaged"), std::string::npos) << outcome.error;
        for (const size_t i : {0, 3}) {
          EXPECT_EQ(outcome.finishes[i], Finish::length);
          EXPECT_EQ(outcome.tokens[i], 30u);
        }
      }
    }
  }
}

// More answers than are drawn at one time: those of the first draw are kept, whatever becomes of the second.
TEST_F(Failures, ASeedDrawsTheSameTokensWhereMemoryWasShortOnce) {
  Request several = request(3, 1);
  several.samples = 70;
  several.sampling.temperature = 1;
  EngineOptions options;
  options.max_sequences = 128;
  const std::vector<Completion> expected = Engine(model, tokenizer, options).generate_samples(several);
  int drawn_again = 0;
  for (int64_t allocation = 0;; ++allocation) {
    Engine engine(model, tokenizer, options);
    std::vector<Completion> found(70);
    several.on_finish = [&](const Completion& one) { found.at(static_cast<size_t>(one.sample)) = one; };
    engine.submit(several);
    const test::RefusedAllocation memory(allocation);
    for (bool more = true; more;) {
      try {
        more = engine.step();
      } catch (const std::exception&) {
        ++drawn_again;
      }
    }
    if (!memory.refused()) break;
    for (size_t i = 0; i < found.size(); ++i) {
      if (found[i].finish == Finish::cancelled) continue;  // its pass had no memory
      ASSERT_EQ(found[i].tokens, expected[i].tokens) << allocation << " " << i;
    }
  }
  EXPECT_GT(drawn_again, 20);
}

// Whichever allocation is refused: the caller is told in plain words, and whoever did not fail by it is answered.
TEST_F(Failures, MemoryThatIsRefusedIsToldInPlainWordsAndNoRequestIsLost) {
  const std::vector<text::Token> text = ids(9);
  Request asked = request(5, 3);
  asked.samples = 2;
  int told = 0;
  bool refused = true;
  for (int64_t allocation = 0; refused; ++allocation) {
    Engine engine(model, tokenizer);
    size_t ended = 0;
    asked.on_finish = [&](const Completion&) { ++ended; };
    for (int i = 0; i < 2; ++i) engine.submit(asked);
    std::optional<test::RefusedAllocation> memory(std::in_place, allocation);
    bool more = true;
    const auto go_on = [&] {
      more = engine.step();
      if (!more) engine.score(text);
    };
    while (more) ASSERT_NO_FATAL_FAILURE(expect_told_plainly(go_on, told)) << allocation;
    refused = memory->refused();
    memory.reset();
    EXPECT_EQ(ended, 4u) << allocation;
    EXPECT_EQ(engine.score(text).numel(), 8);
  }
  EXPECT_GT(told, 20);
}

// A context's K and V, or its pages where they are unpacked, and the threads that make them.
TEST_F(Failures, MemoryThatIsRefusedWhileAContextIsPreparedIsToldInPlainWords) {
  const model::ContextStates exact = states(ids(30));
  model::ContextStates packed;
  for (const at::Tensor& page : exact.pages) packed.append(ops::int8_rows(page));
  using Path = model::CrossAttentionPath;
  int told = 0;
  for (const auto& [context, path] : {std::pair(exact, Path::kept), std::pair(packed, Path::projected)}) {
    EngineOptions options;
    options.path = path;
    bool refused = true;
    for (int64_t allocation = 0; refused; ++allocation) {
      Engine engine(model, tokenizer, options);
      std::optional<test::RefusedAllocation> memory(std::in_place, allocation);
      const auto take = [&, &context = context] {
        if (allocation % 2 == 0) engine.prepare(context);
        if (allocation % 2 == 1) engine.set_context(context);
      };
      ASSERT_NO_FATAL_FAILURE(expect_told_plainly(take, told)) << allocation;
      refused = memory->refused();
      memory.reset();
      engine.set_context(context);
      EXPECT_EQ(engine.context().rows, 30);
    }
  }
  EXPECT_GT(told, 4);
}

// The two kinds of passes round differently: which one a row takes must not depend on the memory of the moment.
TEST_F(Failures, BatchInvariantAnAnswerEndsOrIsTheSameBitForBitWhereMemoryWasShortOnce) {
  EngineOptions options;
  options.batch_invariant = true;
  options.steps_by_tables_on_cpu = true;
  const Request asked = request(5, 6);
  const Completion expected = Engine(model, tokenizer, options).generate(asked);
  int ended = 0;
  bool refused = true;
  for (int64_t allocation = 0; refused; ++allocation) {
    Engine engine(model, tokenizer, options);
    std::optional<Completion> found;
    try {
      const test::RefusedAllocation memory(allocation);
      found = engine.generate(asked);
      refused = memory.refused();
    } catch (const std::exception&) {
      ++ended;
    }
    for (const std::optional<Completion>& one : {found, std::optional(engine.generate(asked))}) {
      if (!one) continue;
      ASSERT_EQ(one->tokens, expected.tokens) << allocation;
      for (size_t t = 0; t < one->tokens.size(); ++t)
        for (size_t k = 0; k < 3; ++k)
          ASSERT_EQ(one->log_probabilities[t][k].log_probability, expected.log_probabilities[t][k].log_probability)
              << allocation << " " << t;
    }
  }
  EXPECT_GT(ended, 20);
}

TEST_F(Failures, AWindowThatCannotSlideEndsItsRequestAlone) {
  model.decoder.config.max_positions = 40;
  model::CepeModel other = test::tiny_model(41);
  other.adapter->encoder.config.vocabulary = 2;  // its encoder refuses the text
  context::ContextStore refusing(*other.adapter, {});
  Request endless = request(10, 60);
  endless.endless = {&refusing, 1, 0};
  Engine engine(model, tokenizer);
  const Outcome outcome = run(engine, {endless, request(5, 34)});
  EXPECT_EQ(outcome.finishes[0], Finish::cancelled);
  EXPECT_EQ(outcome.finishes[1], Finish::length);
  EXPECT_EQ(outcome.tokens[1], 34u);
  EXPECT_EQ(outcome.errors, 1);
}

TEST_F(Failures, KeptContextsGrowBeyondTheBudgetWhereNothingElseIsRead) {
  model.decoder.config.max_positions = 40;
  EngineOptions options;
  options.path = model::CrossAttentionPath::kept;
  options.kept_bytes = 0;
  Engine engine(model, tokenizer, options);
  Request endless = request(10, 120);
  endless.endless = {&store, 1, 0};
  EXPECT_EQ(engine.generate(endless).tokens.size(), 120u);
}

TEST_F(Failures, NumbersBeyondAnyUseAreRefused) {
  EngineOptions options;
  options.cache_rows = 128;
  Engine engine(model, tokenizer, options);
  test::expect_error(base::ErrorCode::out_of_memory, "self-attention cache",
                     [&] { engine.submit(request(5, std::numeric_limits<int64_t>::max())); });
  Request many = request(5, 5);
  many.samples = int64_t{1} << 40;
  test::expect_error(base::ErrorCode::invalid_argument, "answers asked for", [&] { engine.generate_samples(many); });
  Request kept = request(5, 5);
  kept.endless = {&store, -3, 0};
  test::expect_error(base::ErrorCode::invalid_argument, "-3", [&] { engine.submit(kept); });
}

TEST_F(Failures, WhatAnOnFinishCancelsHasNoFurtherPass) {
  Engine engine(model, tokenizer);
  RequestId victim = 0;
  int64_t after = 0;
  std::vector<Finish> finishes;
  Request first = request(5, 100);
  first.on_finish = [&](const Completion&) { EXPECT_TRUE(engine.cancel(victim)); };
  const RequestId cancelled = engine.submit(first);
  engine.step();
  Request several = request(9, 50);
  several.samples = 3;
  several.sampling.temperature = 1;
  several.on_step = [&](const Step&) { return ++after > 0; };
  several.on_finish = [&](const Completion& completion) { finishes.push_back(completion.finish); };
  victim = engine.submit(several);
  engine.cancel(cancelled);
  while (engine.step()) {
  }
  EXPECT_EQ(after, 0);
  EXPECT_EQ(finishes, std::vector<Finish>(3, Finish::cancelled));
}

}  // namespace
}  // namespace cepe::engine
