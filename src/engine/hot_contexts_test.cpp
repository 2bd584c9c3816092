// Contexts that are asked again and again get K and V of their own.
#include "engine/hot_contexts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <latch>
#include <thread>

#include "base/error.h"
#include "engine/engine.h"
#include "engine_bench.h"
#include "expect_error.h"

namespace cepe::engine {
namespace {

struct HotContext : testing::Test, test::EngineBench {
  // As a GPU would leave it: a CPU keeps K and V of a context from the start.
  ContextPointer without_kept(int64_t tokens) {
    return std::make_shared<const model::ContextStates>(states(ids(tokens)));
  }
  // One row, again and again: K and V of so many would take more than any machine has.
  model::ContextStates huge() {
    model::ContextStates context;
    context.append(states(ids(1)).pages.front().expand({int64_t{1} << 40, -1}));
    return context;
  }
  Request question(const ContextPointer& context, int64_t prompt, int64_t tokens) {
    Request asked = request(prompt, tokens);
    asked.context = context;
    return asked;
  }
  static std::vector<Completion> ask(Engine& engine, const std::vector<Request>& requests) {
    std::vector<Completion> found;
    found.reserve(requests.size());
    for (const Request& request : requests) found.push_back(engine.generate(request));
    return found;
  }
  std::vector<Request> questions(int64_t count, int64_t tokens) {
    const ContextPointer context = without_kept(40);
    std::vector<Request> list;
    for (int64_t i = 0; i < count; ++i) list.push_back(question(context, 5 + i % 3, tokens));
    return list;
  }
  static EngineOptions never(EngineOptions options = {}) {
    options.kept_bytes = 0;
    return options;
  }
  static void expect_same(const std::vector<Completion>& found, const std::vector<Completion>& expected) {
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) {
      EXPECT_EQ(found[i].tokens, expected[i].tokens) << i;
      ASSERT_EQ(found[i].log_probabilities.size(), expected[i].log_probabilities.size());
      for (size_t t = 0; t < found[i].log_probabilities.size(); ++t) {
        EXPECT_NEAR(found[i].log_probabilities[t][0].log_probability,
                    expected[i].log_probabilities[t][0].log_probability, 1e-4);
      }
    }
  }
};

TEST_F(HotContext, PaysForItsKAndVOnceAndAnswersTheSame) {
  const std::vector<Request> requests = questions(20, 12);
  Engine fresh(model, tokenizer, never()), engine(model, tokenizer);
  const std::vector<Completion> expected = ask(fresh, requests);
  EXPECT_EQ(fresh.counters().hot_contexts, 0) << "there is no room for it";
  ask(engine, {question(without_kept(24), 1, 1)});
  EXPECT_EQ(engine.counters().hot_contexts, 0) << "one question for one token does not pay";
  expect_same(ask(engine, requests), expected);
  EXPECT_EQ(engine.counters().hot_contexts, 1);
}

TEST_F(HotContext, AnswersThatAreUnderWayGoOnOverIt) {
  const std::vector<Request> requests = questions(4, 60);
  EngineOptions tables;
  tables.steps_by_tables_on_cpu = true;
  for (const EngineOptions& options : {EngineOptions{}, tables}) {
    Engine fresh(model, tokenizer, never(options)), engine(model, tokenizer, options);
    const std::vector<Completion> expected = test::run_together(fresh, requests, 2);
    expect_same(test::run_together(engine, requests, 2), expected);
    EXPECT_EQ(engine.counters().hot_contexts, 1);
  }
}

TEST_F(HotContext, NeverWhereAPathIsAskedForOrNothingMayDependOnOthers) {
  std::vector<EngineOptions> settings(3);
  settings[0].path = model::CrossAttentionPath::absorbed;
  settings[1].path = model::CrossAttentionPath::projected;
  settings[2].batch_invariant = true;
  const std::vector<Request> requests = questions(20, 12);
  for (const EngineOptions& setting : settings) {
    Engine engine(model, tokenizer, setting);
    ask(engine, requests);
    EXPECT_EQ(engine.counters().hot_contexts, 0);
  }
}

TEST_F(HotContext, ABudgetIsForAllOfThem) {
  HotContexts hot(model);
  const ContextPointer context = without_kept(40);
  while (!hot.due()) hot.count(context, 8);
  ASSERT_EQ(hot.keep(1 << 20).size(), 1U);
  const int64_t each = kept_form(model, *context, KeptType::automatic).bytes;
  int64_t kept = 0;
  for (const auto& layer : hot.current(context)->kept)
    kept += static_cast<int64_t>(layer.keys.nbytes() + layer.values.nbytes());
  EXPECT_EQ(each, kept);

  EngineOptions options;
  options.kept_bytes = each * 3 / 2;
  Engine engine(model, tokenizer, options);
  for (int i = 0; i < 2; ++i) ask(engine, questions(20, 12));
  EXPECT_EQ(engine.counters().hot_contexts, 2) << "the first went with its requests";
  const std::vector<Request> both[] = {questions(20, 12), questions(20, 12)};
  for (const auto& requests : both) ask(engine, requests);
  EXPECT_EQ(engine.counters().hot_contexts, 3) << "there is no room for a second beside the first";
}

// Contexts that keep K and V from the start.
struct KeptBudget : HotContext {
  int64_t bytes_of(int64_t tokens, KeptType type) { return kept_form(model, states(ids(tokens)), type).bytes; }
  // The most that is kept after any step of that request.
  static void watch_kept(const Engine& engine, Request& request, int64_t& most) {
    request.on_step = [&](const Step&) {
      most = std::max(most, engine.counters().kept_bytes);
      return true;
    };
  }
  EngineOptions keeping(int64_t bytes, KeptType type = KeptType::automatic) const {
    EngineOptions options;
    options.kept_bytes = bytes;
    options.kept_type = type;
    return options;
  }
  bool keeps(const Engine& engine, int64_t tokens) { return !engine.prepare(states(ids(tokens)))->kept.empty(); }
};

TEST_F(KeptBudget, IsForAllContextsThatSomebodyHas) {
  for (const KeptType type : {KeptType::automatic, KeptType::int8}) {
    Engine engine(model, tokenizer, keeping(bytes_of(40, type) * 3 / 2, type));
    ContextPointer first = engine.prepare(states(ids(40)));
    EXPECT_FALSE(first->kept.empty());
    EXPECT_FALSE(keeps(engine, 40)) << "the first takes two thirds";
    first.reset();
    EXPECT_TRUE(keeps(engine, 40));
    for (int i = 0; i < 3; ++i) {
      engine.set_context(states(ids(48)));
      EXPECT_FALSE(engine.context().kept.empty()) << "the context before makes room";
    }
    EXPECT_FALSE(keeps(engine, 40));
  }
}

TEST_F(KeptBudget, IsForContextsThatSeveralThreadsPrepare) {
  const int64_t each = bytes_of(40, KeptType::automatic);
  const Engine engine(model, tokenizer, keeping(each * 3 / 2));
  for (int repeat = 0; repeat < 20; ++repeat) {
    std::vector<model::ContextStates> given(4);
    for (model::ContextStates& one : given) one = states(ids(40));
    std::vector<ContextPointer> prepared(given.size());
    std::vector<std::thread> threads;
    threads.reserve(given.size());
    std::latch all(static_cast<std::ptrdiff_t>(given.size()));
    for (size_t i = 0; i < given.size(); ++i) {
      threads.emplace_back([&, i] {
        all.arrive_and_wait();
        prepared[i] = engine.prepare(std::move(given[i]));
        EXPECT_LE(engine.counters().kept_bytes, each * 3 / 2);
      });
    }
    for (std::thread& thread : threads) thread.join();
    const auto keeps = [](const ContextPointer& context) { return !context->kept.empty(); };
    EXPECT_EQ(std::count_if(prepared.begin(), prepared.end(), keeps), 1);
  }
}

// A thread that steps is not kept from it by others that prepare: they are refused, or it waits for them.
TEST_F(KeptBudget, IsCountedBeforeAStepBegins) {
  const int64_t each = bytes_of(40, KeptType::automatic);
  Engine engine(model, tokenizer, keeping(each * 3 / 2));
  const model::ContextStates given = states(ids(40));
  std::atomic<bool> ended = false;
  std::thread other([&] {
    while (!ended) {
      try {
        const ContextPointer context = engine.prepare(given);
        engine.counters();
      } catch (const base::Error& error) {
        EXPECT_EQ(error.code(), base::ErrorCode::invalid_argument) << error.what();
      }
    }
  });
  for (int i = 0; i < 20; ++i) EXPECT_EQ(engine.generate(request(5, 5)).tokens.size(), 5u);
  ended = true;
  other.join();
}

TEST_F(KeptBudget, IsForHotContextsBesideThose) {
  const int64_t each = bytes_of(40, KeptType::automatic);
  const std::vector<Request> requests = questions(20, 12);
  Engine engine(model, tokenizer, keeping(each * 3 / 2));
  const ContextPointer first = engine.prepare(states(ids(40)));
  ask(engine, requests);
  EXPECT_EQ(engine.counters().hot_contexts, 0);
}

TEST_F(KeptBudget, HotContextsThatNobodyHasAnyMoreTakeNoneOfIt) {
  Engine engine(model, tokenizer, keeping(bytes_of(40, KeptType::automatic) * 3 / 2));
  ask(engine, questions(20, 12));
  EXPECT_EQ(engine.counters().hot_contexts, 1);
  EXPECT_EQ(engine.counters().kept_bytes, 0);
  ask(engine, questions(20, 12));
  EXPECT_EQ(engine.counters().hot_contexts, 2);
  EXPECT_TRUE(keeps(engine, 40));
}

TEST_F(KeptBudget, IsForAllAnswersWhoseWindowsSlide) {
  model.decoder.config.max_positions = 40;
  for (const KeptType type : {KeptType::automatic, KeptType::int8}) {
    const auto kept_of = [&](int64_t samples, int64_t budget) {
      Engine engine(model, tokenizer, keeping(budget, type));
      Request several = request(10, 100);
      several.endless = {&store, 1, 0};
      several.samples = samples;
      several.sampling.temperature = 1;
      int64_t most = 0;
      watch_kept(engine, several, most);
      engine.generate_samples(several);
      return most;
    };
    const int64_t one = kept_of(1, int64_t{1} << 30), four = kept_of(4, int64_t{1} << 30);
    EXPECT_GT(one, 0);
    EXPECT_GT(four, one);
    EXPECT_LE(kept_of(4, four / 2), four / 2);
    EXPECT_GE(kept_of(4, four / 2), one / 2);
  }
}

// A window that slides takes the text of the prompt first: the same for all its answers, and for another request.
TEST_F(KeptBudget, CountsOnceWhatWindowsThatSlidOverTheSameTextShare) {
  model.decoder.config.max_positions = 40;
  const auto kept_of = [&](int64_t samples, int64_t requests) {
    Engine engine(model, tokenizer, keeping(int64_t{1} << 30));
    const ContextPointer context = engine.prepare(states(std::vector<text::Token>(21, 7)));
    Request several = request(1, 25);
    several.prompt.assign(30, 5);
    several.context = context;
    several.endless = {&store, 1, 0};
    several.samples = samples;
    several.sampling.temperature = 1;
    int64_t most = 0;
    watch_kept(engine, several, most);
    test::run_together(engine, std::vector<Request>(static_cast<size_t>(requests), several));
    return most;
  };
  const int64_t one = kept_of(1, 1);
  EXPECT_GT(one, bytes_of(21, KeptType::automatic));
  EXPECT_EQ(kept_of(4, 1), one);
  EXPECT_EQ(kept_of(2, 2), one);
}

TEST_F(KeptBudget, OfAHotContextThatOnlyOneAnswerHasIsRoomForWhatItBecomes) {
  model.decoder.config.max_positions = 200;
  EngineOptions options = keeping(bytes_of(140, KeptType::automatic));
  options.prefill_rows = 8;  // passes that lose
  Engine engine(model, tokenizer, options);
  Request asked = question(without_kept(40), 30, 230);
  asked.endless = {&store, 1, 0};
  int64_t before = 0, after = 0;
  asked.on_step = [&](const Step&) {
    (engine.counters().rows <= 200 ? before : after) = engine.counters().kept_bytes;
    return true;
  };
  engine.submit(std::move(asked));
  while (engine.step()) {
  }
  EXPECT_EQ(engine.counters().hot_contexts, 1);
  EXPECT_EQ(before, bytes_of(40, KeptType::automatic));
  EXPECT_EQ(after, bytes_of(40 + 96, KeptType::automatic)) << "the oldest half of the window joined it";
  EXPECT_EQ(engine.counters().kept_bytes, 0);
}

TEST_F(KeptBudget, CountsAHotContextAsLongAsAnAnswerReadsIt) {
  EngineOptions options;
  options.prefill_rows = 8;
  Engine engine(model, tokenizer, options);
  Request asked = question(without_kept(40), 30, 100);
  const int64_t each = bytes_of(40, KeptType::automatic);
  asked.on_step = [&](const Step&) {
    EXPECT_EQ(engine.counters().kept_bytes, engine.counters().hot_contexts * each);
    return true;
  };
  engine.submit(std::move(asked));
  while (engine.step()) {
    if (engine.counters().rows == 80) engine.submit(request(1, 1));  // contexts that nobody has any more are given up
  }
  EXPECT_EQ(engine.counters().hot_contexts, 1);
  engine.submit(request(1, 1));
  EXPECT_EQ(engine.counters().kept_bytes, 0);
}

TEST_F(KeptBudget, OfBatchInvariantAnswersIsForEachContextAndNeverTheMemoryOfTheMoment) {
  EngineOptions options = keeping(bytes_of(40, KeptType::automatic));
  options.batch_invariant = true;
  Engine engine(model, tokenizer, options);
  const ContextPointer first = engine.prepare(states(ids(40)));
  EXPECT_TRUE(keeps(engine, 40));
  EXPECT_FALSE(keeps(engine, 48));

  options.kept_bytes = -1;
  Engine without_limit(model, tokenizer, options);
  EXPECT_TRUE(keeps(without_limit, 40));
  test::expect_error(base::ErrorCode::out_of_memory, "--cross-attention absorbed",
                     [&] { without_limit.prepare(huge()); });
}

TEST_F(HotContext, WhatDoesNotFitHasToLoseAsMuchAgain) {
  HotContexts hot(model);
  const ContextPointer context = without_kept(40);
  const auto passes_until_due = [&] {
    int passes = 0;
    for (; !hot.due() && passes < 10000; ++passes) hot.count(context, 8);
    return passes;
  };
  const int first = passes_until_due();
  EXPECT_GT(first, 1);
  EXPECT_LT(first, 10000);
  EXPECT_TRUE(hot.keep(16).empty()) << "16 bytes";
  EXPECT_EQ(hot.current(context), context);
  EXPECT_FALSE(hot.due());
  EXPECT_EQ(passes_until_due(), first);
  const std::vector<ContextPointer> made = hot.keep(1 << 20);
  const ContextPointer kept = hot.current(context);
  EXPECT_EQ(made, (std::vector<ContextPointer>{kept}));
  ASSERT_NE(kept, context);
  EXPECT_EQ(kept->rows, context->rows);
  EXPECT_EQ(kept->kept.size(), 2U);
  EXPECT_NE(kept->table(), context->table()) << "recorded steps tell contexts apart by their tables";
  hot.count(kept, 100);
  EXPECT_FALSE(hot.due()) << "it loses nothing any more";
  EXPECT_TRUE(hot.forget());
  EXPECT_FALSE(hot.forget());
  EXPECT_EQ(hot.current(context), context);
}

TEST_F(HotContext, WhatItLostCountsOnWhereItGrows) {
  HotContexts hot(model);
  const auto passes_until_due = [&](const ContextPointer& context) {
    int passes = 0;
    for (; !hot.due() && passes < 1000; ++passes) hot.count(context, 2);
    hot.keep(1 << 20);
    return passes;
  };
  const int anew = passes_until_due(without_kept(40));
  ASSERT_GT(anew, 3);
  ASSERT_LT(anew, 1000);
  const auto passes_after_growing = [&](const ContextPointer& context, const ContextPointer& grown) {
    for (int pass = 1; pass < anew; ++pass) hot.count(context, 2);
    hot.follow(context, grown);
    const int passes = passes_until_due(grown);
    EXPECT_FALSE(hot.current(grown)->kept.empty());
    EXPECT_EQ(passes_until_due(context), anew) << "what it lost went on";
    return passes;
  };
  EXPECT_LE(passes_after_growing(without_kept(40), without_kept(48)), 2);
  EXPECT_GE(passes_after_growing(without_kept(40), without_kept(400)), anew - 1) << "a tenth of the price was paid";
}

// The window slides long before the passes of one context have paid for its K and V.
TEST_F(HotContext, OfALongConversationIsKeptInTheEnd) {
  model.decoder.config.max_positions = 12;
  const auto hot_contexts = [&](int64_t tokens) {
    Engine engine(model, tokenizer);
    Request asked = question(without_kept(400), 5, tokens);
    asked.endless = {&store, 1, 0};
    engine.submit(std::move(asked));
    while (engine.step()) {
    }
    return engine.counters().hot_contexts;
  };
  EXPECT_EQ(hot_contexts(8), 0);
  EXPECT_EQ(hot_contexts(300), 1);
}

TEST_F(HotContext, GoesWithTheContextItIsOf) {
  HotContexts hot(model);
  ContextPointer context = without_kept(40);
  while (!hot.due()) hot.count(context, 8);
  hot.keep(1 << 20);
  const std::weak_ptr<const model::ContextStates> kept = hot.current(context);
  hot.drop_expired();
  EXPECT_FALSE(kept.expired());
  context.reset();
  hot.drop_expired();
  EXPECT_TRUE(kept.expired());
}

TEST_F(HotContext, KAndVThatCannotFitAreNotTried) {
  const model::ContextStates context = huge();
  EngineOptions settings;
  settings.kept_bytes = int64_t{1} << 62;
  EXPECT_TRUE(Engine(model, tokenizer, settings).prepare(context)->kept.empty());
  settings.path = model::CrossAttentionPath::kept;
  test::expect_error(base::ErrorCode::out_of_memory, "--cross-attention absorbed",
                     [&] { Engine(model, tokenizer, settings).prepare(context); });
}

}  // namespace
}  // namespace cepe::engine
