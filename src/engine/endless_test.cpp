// A window that slides, and what an answer leaned on.
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <numeric>
#include <tuple>

#include "engine/engine.h"
#include "engine_bench.h"
#include "expect_error.h"

namespace cepe::engine {
namespace {

struct EndlessAnswers : testing::Test, test::EngineBench {
  EndlessAnswers() { model.decoder.config.max_positions = 40; }

  Request endless(int64_t prompt, int64_t tokens, int64_t keep_first, int64_t window = 0) {
    Request request = this->request(prompt, tokens);
    request.endless = {&store, keep_first, window};
    return request;
  }
};

TEST_F(EndlessAnswers, GoOnExactlyAsIfBegunAnewWithThatArrangement) {
  for (const int64_t kept_bytes : {int64_t{0}, int64_t{1} << 30}) {
    EngineOptions options;
    options.kept_bytes = kept_bytes;
    Engine engine(model, tokenizer, options);
    const std::vector<text::Token> document = ids(21);
    Request request = endless(10, 52, 1);
    request.context = engine.prepare(states(document));
    const Completion found = engine.generate(request);
    ASSERT_EQ(found.tokens.size(), 52U);
    EXPECT_EQ(found.finish, Finish::length);

    // 10 + 31 tokens do not fit 40 positions: of the 39 behind the first, the oldest 16 (two chunks) leave.
    std::vector<text::Token> window = request.prompt;
    window.insert(window.end(), found.tokens.begin(), found.tokens.begin() + 31);
    std::vector<context::Chunk> chunks = context::split(document, 8, 0);
    for (const context::Chunk& chunk : context::split(std::span(window).subspan(1, 16), 8, 1)) chunks.push_back(chunk);
    window.erase(window.begin() + 1, window.begin() + 17);
    Request again = this->request(1, 15);  // until the window is full once more
    again.prompt = window;
    Engine fresh(model, tokenizer, options);
    fresh.set_context(store.get_or_encode(chunks));
    const Completion expected = fresh.generate(again);
    const std::vector<text::Token> continued(found.tokens.begin() + 31, found.tokens.begin() + 46);
    EXPECT_EQ(continued, expected.tokens);
    for (size_t t = 0; t < 15; ++t) {
      EXPECT_NEAR(found.log_probabilities[31 + t][0].log_probability, expected.log_probabilities[t][0].log_probability,
                  1e-5);
    }
  }
}

TEST_F(EndlessAnswers, HaveNoEnd) {
  Engine engine(model, tokenizer);
  const Completion ends = engine.generate(request(10, 500));
  EXPECT_EQ(ends.finish, Finish::window);
  EXPECT_EQ(ends.tokens.size(), 31U);
  const Completion whole = engine.generate(endless(10, 500, 2, 30));
  EXPECT_EQ(whole.tokens.size(), 500U);
  EXPECT_EQ(whole.finish, Finish::length);
  Request long_prompt = endless(200, 5, 0);
  EXPECT_EQ(engine.generate(long_prompt).tokens.size(), 5U) << "a prompt may be longer than the window, too";
}

TEST_F(EndlessAnswers, AreTheSameBesideOthers) {
  Engine engine(model, tokenizer), other(model, tokenizer);
  std::vector<Request> requests = {endless(10, 90, 1), endless(35, 40, 0), request(4, 20)};
  const std::vector<Completion> found = test::run_together(engine, requests, 2);
  for (size_t i = 0; i < requests.size(); ++i) EXPECT_EQ(found[i].tokens, other.generate(requests[i]).tokens) << i;
}

TEST_F(EndlessAnswers, OfOnePromptEachGoesOnAsAloneWhateverElseIsAsked) {
  for (const auto& [prompt, invariant, tables] :
       std::vector<std::tuple<int64_t, bool, bool>>{{10, false, false}, {10, true, false}, {90, false, true}}) {
    EngineOptions options;
    options.prefill_rows = 16;
    options.max_sequences = 2;
    options.batch_invariant = invariant;
    options.steps_by_tables_on_cpu = tables;
    options.kept_bytes = 1 << 30;
    Request several = endless(prompt, 70, 1);
    several.samples = 5;
    several.sampling.temperature = 1.5;
    several.sampling.seed = 8;
    several.sampling.presence_penalty = 0.5;
    several.attribution = true;
    several.stop = {"z"};
    Engine alone(model, tokenizer, options);
    several.context = alone.prepare(states(ids(21)));
    std::vector<Completion> expected;
    for (size_t i = 0; i < 5; ++i) {
      Request one = several;
      one.sampling.seed = 8 + i;
      expected.push_back(alone.generate(one));
    }
    options.cache_rows = 64;  // of one answer
    Engine engine(model, tokenizer, options);
    Request urgent = request(20, 10);
    urgent.priority = 1;
    std::vector<Completion> found(5);
    several.on_finish = [&](const Completion& one) { found.at(static_cast<size_t>(one.sample)) = one; };
    engine.submit(several);
    for (int step = 0; step < 60; ++step) engine.step();
    engine.submit(urgent);
    while (engine.step()) {
    }
    for (size_t i = 0; i < 5; ++i) {
      SCOPED_TRACE("prompt " + std::to_string(prompt) + ", answer " + std::to_string(i));
      test::expect_close(found[i], expected[i], 1e-4);
      EXPECT_EQ(found[i].tokens, expected[i].tokens);
      EXPECT_EQ(found[i].text, expected[i].text);
      EXPECT_EQ(found[i].finish, expected[i].finish);
      ASSERT_EQ(found[i].page_masses.size(), found[i].tokens.size());
      for (size_t t = 0; t < found[i].tokens.size(); ++t) {
        ASSERT_EQ(found[i].page_masses[t].size(), expected[i].page_masses[t].size());
        for (size_t page = 0; page < found[i].page_masses[t].size(); ++page)
          EXPECT_NEAR(found[i].page_masses[t][page], expected[i].page_masses[t][page], 1e-4);
      }
    }
    EXPECT_GT(engine.counters().preemptions, 0);
  }
}

TEST_F(EndlessAnswers, NeedAnAdapterAndAWindowThatCanSlide) {
  Engine engine(model, tokenizer);
  test::expect_error(base::ErrorCode::invalid_argument, "cannot slide", [&] { engine.submit(endless(3, 5, 9, 10)); });
  context::ContextStore* there = &store;
  model::CepeModel bare = {model.decoder, std::nullopt};
  Engine without(bare, tokenizer);
  Request request = this->request(3, 5);
  request.endless.store = there;
  test::expect_error(base::ErrorCode::invalid_argument, "needs an adapter", [&] { without.submit(request); });
}

TEST_F(EndlessAnswers, AttributionSumsToOneAndIsTheSameHoweverItIsComputed) {
  std::vector<std::vector<float>> first;
  const model::ContextStates context = states(ids(29));  // 4 pages
  Request request = endless(10, 45, 0);
  request.attribution = true;
  for (const auto& [kept_bytes, by_tables] :
       std::vector<std::pair<int64_t, bool>>{{0, false}, {1 << 30, false}, {0, true}, {1 << 30, true}}) {
    EngineOptions options;
    options.kept_bytes = kept_bytes;
    options.prefill_rows = 7;
    options.steps_by_tables_on_cpu = by_tables;
    Engine engine(model, tokenizer, options);
    engine.set_context(context);
    std::vector<Request> requests = {this->request(3, 20), request};
    const std::vector<std::vector<float>> masses = test::run_together(engine, requests, 1)[1].page_masses;
    EXPECT_EQ(engine.counters().steps_by_tables > 40, by_tables);
    ASSERT_EQ(masses.size(), 45U);
    EXPECT_EQ(masses.front().size(), 4U);
    EXPECT_EQ(masses.back().size(), 6U) << "two chunks of what was said joined them";
    for (const auto& one : masses) EXPECT_NEAR(std::accumulate(one.begin(), one.end(), 0.0), 1, 1e-5);
    if (first.empty()) first = masses;
    for (size_t t = 0; t < 45; ++t)
      for (size_t page = 0; page < masses[t].size(); ++page) EXPECT_NEAR(masses[t][page], first[t][page], 1e-4);
  }
}

TEST_F(EndlessAnswers, AttributionOverKAndVIn8BitsIsTheSameToTheirRounding) {
  const model::ContextStates context = states(ids(29));
  Request request = endless(10, 45, 0);
  request.attribution = true;
  std::vector<Completion> found;
  for (const KeptType type : {KeptType::bfloat16, KeptType::int8}) {
    EngineOptions options;
    options.kept_bytes = 1 << 30;
    options.kept_type = type;
    Engine engine(model, tokenizer, options);
    engine.set_context(context);
    EXPECT_EQ(engine.context().kept.front().type() == at::kByte, type == KeptType::int8);
    found.push_back(engine.generate(request));
    EXPECT_EQ(found.back().page_masses.back().size(), 6U) << "two chunks of what was said joined them";
  }
  for (size_t t = 0; t < 45 && found[0].tokens[t] == found[1].tokens[t]; ++t) {
    const auto &masses = found[1].page_masses[t], &expected = found[0].page_masses[t];
    EXPECT_NEAR(std::accumulate(masses.begin(), masses.end(), 0.0), 1, 1e-5);
    for (size_t page = 0; page < masses.size(); ++page) EXPECT_NEAR(masses[page], expected[page], 5e-3);
  }
}

// Rows that score alike share the mass evenly: a page with four times as many has four times as much.
TEST_F(EndlessAnswers, AttributionFindsThePageThatHoldsMost) {
  Engine engine(model, tokenizer);
  Request request = this->request(6, 1);
  request.attribution = true;
  for (const int64_t planted : {0, 2, 3}) {
    model::ContextStates context;
    for (int64_t page = 0; page < 4; ++page) {
      at::Tensor rows = at::zeros({5, 24});
      if (page == planted) rows = rows.repeat({4, 1});  // of equal scores, four times as many
      context.append(rows);
    }
    request.context = engine.prepare(context);
    const std::vector<float> masses = engine.generate(request).page_masses.front();
    for (int64_t page = 0; page < 4; ++page)
      EXPECT_NEAR(masses[static_cast<size_t>(page)], page == planted ? 4.0 / 7 : 1.0 / 7, 1e-5);
  }
}

}  // namespace
}  // namespace cepe::engine
