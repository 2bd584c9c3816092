// A window that slides, and what an answer leaned on.
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <numeric>

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
