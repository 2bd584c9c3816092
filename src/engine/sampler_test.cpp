#include "engine/sampler.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>

#include "expect_error.h"
#include "refused_allocation.h"

namespace cepe::engine {
namespace {

const at::Tensor logits = at::tensor({0.0f, 1.0f, 2.0f, 3.0f});

using Tokens = std::vector<text::Token>;

// The next token behind a prompt and generated ones.
text::Token next(const Sampling& sampling, const Tokens& prompt = {}, const Tokens& generated = {}) {
  Sampler sampler(sampling, prompt, 4, at::kCPU);
  for (const text::Token token : generated) sampler.count(token);
  return choose(logits.unsqueeze(0), std::array{&sampler}, std::array{int64_t{-1}}).front().token;
}

std::map<text::Token, int> draw(const Sampling& sampling, int count) {
  Sampler sampler(sampling, {}, 4, at::kCPU);
  std::map<text::Token, int> found;
  for (int i = 0; i < count; ++i)
    ++found[choose(logits.unsqueeze(0), std::array{&sampler}, std::array{int64_t{-1}}).front().token];
  return found;
}

TEST(Sampler, GreedyTakesTheBest) { EXPECT_EQ(draw({}, 10), (std::map<text::Token, int>{{3, 10}})); }

TEST(Sampler, FrequenciesFollowTheSoftmax) {
  Sampling sampling;
  sampling.temperature = 2;
  const auto found = draw(sampling, 20000);
  double total = 0;
  for (int i = 0; i < 4; ++i) total += std::exp(i / 2.0);
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(found.at(i) / 20000.0, std::exp(i / 2.0) / total, 0.02);
}

TEST(Sampler, TopKTopPAndMinPCutTheTail) {
  Sampling sampling;
  sampling.temperature = 10;
  sampling.top_k = 2;
  EXPECT_EQ(draw(sampling, 200).size(), 2u);
  sampling = {};
  sampling.temperature = 1;
  sampling.top_p = 0.65;  // the softmax: 0.644, 0.237, 0.087, 0.032
  EXPECT_EQ(draw(sampling, 200).size(), 2u);
  sampling.top_p = 1;
  sampling.min_p = 0.3;
  EXPECT_EQ(draw(sampling, 200).size(), 2u);
}

TEST(Sampler, TheSameSeedDrawsTheSame) {
  Sampling sampling;
  sampling.temperature = 1;
  sampling.seed = 7;
  EXPECT_EQ(draw(sampling, 100), draw(sampling, 100));
}

TEST(Sampler, PenaltiesMoveTheChoiceAway) {
  Sampling sampling;
  sampling.repetition_penalty = 2;
  EXPECT_EQ(next(sampling, {3}), 2);
  sampling = {};
  sampling.presence_penalty = 1.5;
  EXPECT_EQ(next(sampling, {}, {3}), 2);
  EXPECT_EQ(next(sampling, {3}), 3) << "of generated tokens only";
  sampling = {};
  sampling.frequency_penalty = 0.6;
  EXPECT_EQ(next(sampling, {}, {3}), 3);
  EXPECT_EQ(next(sampling, {}, {3, 3}), 2);
}

TEST(Sampler, WhatItChoseCounts) {
  Sampling sampling;
  sampling.presence_penalty = 50;
  Sampler sampler(sampling, {}, 4, at::kCPU);
  for (const text::Token expected : {3, 2, 1, 0})
    EXPECT_EQ(choose(logits.unsqueeze(0), std::array{&sampler}, std::array{int64_t{-1}}).front().token, expected);
}

TEST(Sampler, ABiasIsAddedAndMinusInfinityBans) {
  Sampling sampling;
  sampling.logit_bias = {{0, 3.5}};
  EXPECT_EQ(next(sampling), 0);
  sampling.logit_bias = {{3, -std::numeric_limits<double>::infinity()}};
  EXPECT_EQ(next(sampling), 2);
  sampling.temperature = 100;
  EXPECT_FALSE(draw(sampling, 500).contains(3));
}

TEST(Sampler, BansThatLeaveNoTokenAreRefusedAndOneThatIsLeftIsDrawn) {
  const double banned = -std::numeric_limits<double>::infinity();
  for (const double temperature : {0.0, 1.0}) {
    Sampling sampling;
    sampling.temperature = temperature;
    sampling.logit_bias = {{0, banned}, {3, banned}, {3, banned}, {2, banned}};
    EXPECT_EQ(draw(sampling, 20), (std::map<text::Token, int>{{1, 20}}));
    sampling.logit_bias.emplace_back(1, banned);
    test::expect_error(base::ErrorCode::invalid_argument, "bans all 4 tokens", [&] { next(sampling); });
  }
}

TEST(Sampler, OptionsOutOfRangeAreNamed) {
  const auto refused = [](const Sampling& sampling, const char* name) {
    test::expect_error(base::ErrorCode::invalid_argument, name, [&] { Sampler(sampling, {}, 4, at::kCPU); });
  };
  Sampling sampling;
  sampling.top_p = 0;
  refused(sampling, "--top-p is 0;");
  sampling = {};
  sampling.temperature = -1;
  refused(sampling, "--temperature is -1;");
  sampling = {};
  sampling.frequency_penalty = 1e300;
  refused(sampling, "--frequency-penalty is 1e+300;");
  sampling = {};
  sampling.top_k = -1;
  refused(sampling, "--top-k is -1;");
  sampling = {};
  sampling.logit_bias = {{4, 1}};
  refused(sampling, "--logit-bias");
  sampling.logit_bias = {{1, 3e38}};
  refused(sampling, "--logit-bias of token 1 is 3e+38; it must be from -1e30 to 1e30, or -infinity");
  sampling.logit_bias = {{1, -3e38}};
  refused(sampling, "--logit-bias of token 1");
  sampling.logit_bias = {{1, std::numeric_limits<double>::quiet_NaN()}};
  refused(sampling, "--logit-bias");
}

TEST(Sampler, TheLargestOfAllOptionsStillBanAndChoose) {
  const double banned = -std::numeric_limits<double>::infinity();
  Sampling sampling;
  sampling.temperature = 1;
  sampling.frequency_penalty = -100;
  for (const double penalty : {1e-30, 1e30}) {
    sampling.repetition_penalty = penalty;
    sampling.logit_bias = {{2, 1e30}, {1, 1e30}, {1, 1e30}, {1, banned}};
    for (sampling.seed = 0; sampling.seed < 20; ++sampling.seed)
      EXPECT_EQ(next(sampling, {3, 1}, {0, 1}), penalty < 1 ? 3 : 2);
  }
  sampling.repetition_penalty = 1e-31;
  test::expect_error(base::ErrorCode::invalid_argument, "repetition-penalty", [&] { validate(sampling); });
}

// Rows of one batch that differ in everything: each is what it is alone.
TEST(Sampler, EachRowOfABatchIsDrawnAsIfAlone) {
  at::manual_seed(5);
  const at::Tensor rows = at::randn({6, 50}) * 3;
  std::vector<Sampling> settings(6);
  settings[1].temperature = 1, settings[1].seed = 11;
  settings[2].temperature = 0.7, settings[2].top_k = 5, settings[2].seed = 12;
  settings[3].temperature = 2, settings[3].top_p = 0.8, settings[3].seed = 13;
  settings[4].temperature = 1.5, settings[4].min_p = 0.1, settings[4].frequency_penalty = 1, settings[4].seed = 14;
  settings[5].logit_bias = {{7, 100}};
  std::vector<std::unique_ptr<Sampler>> together, alone;
  std::vector<Sampler*> batch;
  for (const Sampling& setting : settings) {
    together.push_back(std::make_unique<Sampler>(setting, Tokens{1, 2}, 50, at::kCPU));
    alone.push_back(std::make_unique<Sampler>(setting, Tokens{1, 2}, 50, at::kCPU));
    batch.push_back(together.back().get());
  }
  std::set<text::Token> drawn;
  for (int step = 0; step < 50; ++step) {
    const std::vector<Choice> choices = choose(rows, batch, std::vector<int64_t>{-1, 3, -1, 0, -1, 50});
    for (size_t i = 0; i < batch.size(); ++i) {
      const Choice one =
          choose(rows.narrow(0, static_cast<int64_t>(i), 1), std::array{alone[i].get()}, std::array{int64_t{-1}})
              .front();
      EXPECT_EQ(choices[i].token, one.token) << "row " << i << " step " << step;
    }
    EXPECT_EQ(choices[0].log_probabilities.size(), 0U);
    EXPECT_EQ(choices[1].log_probabilities.size(), 4U);
    EXPECT_EQ(choices[3].log_probabilities.size(), 1U);
    EXPECT_EQ(choices[5].log_probabilities.size(), 51U);
    EXPECT_EQ(choices[5].token, 7);
    drawn.insert(choices[1].token);
  }
  EXPECT_GT(drawn.size(), 3U);
}

TEST(Sampler, WhereThereWasNoMemoryTheSameTokensAreDrawnTheNextTime) {
  at::manual_seed(6);
  const at::Tensor rows = at::randn({2, 50});
  Sampling sampling;
  sampling.temperature = 2;
  sampling.presence_penalty = 3;
  sampling.repetition_penalty = 1.5;
  const auto drawn = [&](int64_t allocations, bool& refused) {
    std::array<Sampler, 2> samplers = {Sampler(sampling, Tokens{1}, 50, at::kCPU),
                                       Sampler(sampling, Tokens{2}, 50, at::kCPU)};
    const auto choose_both = [&] {
      std::vector<text::Token> tokens;
      for (const Choice& choice : choose(rows, std::array{&samplers[0], &samplers[1]}, std::array<int64_t, 2>{3, -1}))
        tokens.push_back(choice.token);
      return tokens;
    };
    {
      const test::RefusedAllocation memory(allocations);
      try {
        std::vector<text::Token> tokens = choose_both();
        refused = false;
        return tokens;
      } catch (const c10::Error&) {
        refused = true;
      }
    }
    return choose_both();
  };
  bool refused = true;
  const std::vector<text::Token> expected = drawn(std::numeric_limits<int64_t>::max(), refused);
  int64_t allocations = 0;
  for (refused = true; refused; ++allocations) EXPECT_EQ(drawn(allocations, refused), expected) << allocations;
  EXPECT_GT(allocations, 20);
}

TEST(Sampler, LogProbabilitiesAreOfTheUnmodifiedLogits) {
  Sampling sampling;
  sampling.logit_bias = {{1, 100}};
  Sampler sampler(sampling, {}, 4, at::kCPU);
  const auto list = choose(logits.unsqueeze(0), std::array{&sampler}, std::array{int64_t{2}}).front().log_probabilities;
  ASSERT_EQ(list.size(), 3u);
  double total = 0;
  for (int i = 0; i < 4; ++i) total += std::exp(i);
  EXPECT_EQ(list[0].token, 1);
  EXPECT_NEAR(list[0].log_probability, 1 - std::log(total), 1e-5);
  EXPECT_EQ(list[1].token, 3);
  EXPECT_NEAR(list[1].log_probability, 3 - std::log(total), 1e-5);
}

// Logits in bfloat16 tie often: which of equals is drawn is a matter of the row's seed and of nothing else.
TEST(Sampler, WhoElseIsInTheBatchDoesNotMoveADrawAmongEquals) {
  const int64_t vocabulary = 5000;
  const at::Tensor tied = at::randn({2, vocabulary}).to(at::kBFloat16).to(at::kFloat);
  const auto drawn = [&](uint64_t seed, std::optional<int64_t> top_k_of_neighbour) {
    Sampling own, other;
    own.temperature = other.temperature = 3;
    own.top_k = 40;
    own.seed = seed;
    other.top_k = top_k_of_neighbour.value_or(0);
    Sampler first(own, {}, vocabulary, at::kCPU), second(other, {}, vocabulary, at::kCPU);
    if (!top_k_of_neighbour)
      return choose(tied.narrow(0, 0, 1), std::array{&first}, std::array{int64_t{-1}}).front().token;
    return choose(tied, std::array{&first, &second}, std::array{int64_t{-1}, int64_t{-1}}).front().token;
  };
  for (uint64_t seed = 0; seed < 100; ++seed) {
    const text::Token alone = drawn(seed, std::nullopt);
    EXPECT_EQ(drawn(seed, 0), alone);
    EXPECT_EQ(drawn(seed, 100), alone);
  }
}

}  // namespace
}  // namespace cepe::engine
