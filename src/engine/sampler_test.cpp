#include "engine/sampler.h"

#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "base/error.h"

namespace cepe::engine {
namespace {

const at::Tensor logits = at::tensor({0.0f, 1.0f, 2.0f, 3.0f});

std::map<text::Token, int> draw(const Sampling& sampling, int count) {
  Sampler sampler(sampling);
  std::map<text::Token, int> found;
  for (int i = 0; i < count; ++i) ++found[sampler.sample(logits, {}, {})];
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
  EXPECT_EQ(Sampler(sampling).sample(logits, std::vector<text::Token>{3}, {}), 2);
  sampling = {};
  sampling.presence_penalty = 1.5;
  EXPECT_EQ(Sampler(sampling).sample(logits, {}, std::vector<text::Token>{3}), 2);
  EXPECT_EQ(Sampler(sampling).sample(logits, std::vector<text::Token>{3}, {}), 3) << "of generated tokens only";
  sampling = {};
  sampling.frequency_penalty = 0.6;
  EXPECT_EQ(Sampler(sampling).sample(logits, {}, std::vector<text::Token>{3}), 3);
  EXPECT_EQ(Sampler(sampling).sample(logits, {}, std::vector<text::Token>{3, 3}), 2);
}

TEST(Sampler, OptionsOutOfRangeAreNamed) {
  Sampling sampling;
  sampling.top_p = 0;
  EXPECT_THROW(Sampler{sampling}, base::Error);
  sampling = {};
  sampling.temperature = -1;
  EXPECT_THROW(Sampler{sampling}, base::Error);
}

TEST(Sampler, LogProbabilitiesAreOfTheUnmodifiedLogits) {
  const auto list = top_log_probabilities(logits, 1, 2);
  ASSERT_EQ(list.size(), 3u);
  double total = 0;
  for (int i = 0; i < 4; ++i) total += std::exp(i);
  EXPECT_EQ(list[0].token, 1);
  EXPECT_NEAR(list[0].log_probability, 1 - std::log(total), 1e-5);
  EXPECT_EQ(list[1].token, 3);
  EXPECT_NEAR(list[1].log_probability, 3 - std::log(total), 1e-5);
}

}  // namespace
}  // namespace cepe::engine
