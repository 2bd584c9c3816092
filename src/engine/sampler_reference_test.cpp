// The sampler beside the same written plainly, one row and one token after the other, over settings drawn at random.
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "engine/sampler.h"

namespace cepe::engine {
namespace {

constexpr int64_t reference_vocabulary = 40;
constexpr double banned_bias = -std::numeric_limits<double>::infinity();

// One sequence, as sampler.h tells it.
struct PlainSampler {
  Sampling sampling;
  std::set<text::Token> seen;
  std::map<text::Token, int> generated;

  std::vector<float> modified(std::vector<float> logits) const {
    for (const text::Token token : seen) {
      float& logit = logits[static_cast<size_t>(token)];
      const auto penalty = static_cast<float>(sampling.repetition_penalty);
      logit = logit > 0 ? logit / penalty : logit * penalty;
    }
    for (const auto& [token, count] : generated)
      logits[static_cast<size_t>(token)] -=
          static_cast<float>(count * sampling.frequency_penalty + sampling.presence_penalty);
    for (const auto& [token, bias] : sampling.logit_bias)
      logits[static_cast<size_t>(token)] += static_cast<float>(bias);
    return logits;
  }
  // Best first, of equals the smaller id.
  static std::vector<text::Token> ordered(const std::vector<float>& logits) {
    std::vector<text::Token> ids(logits.size());
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<text::Token>(i);
    std::ranges::stable_sort(ids, [&](text::Token a, text::Token b) {
      return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
    });
    return ids;
  }
  // The token for a uniform number, and by how much that would have to move for another: rounding decides below 1e-5.
  text::Token next(const std::vector<float>& unmodified, double uniform, double& margin) const {
    const std::vector<float> logits = modified(unmodified);
    const std::vector<text::Token> ids = ordered(logits);
    const auto at = [&](size_t rank) { return static_cast<double>(logits[static_cast<size_t>(ids[rank])]); };
    margin = at(0) - at(1) > 0 ? std::min(1.0, at(0) - at(1)) : 1;
    if (sampling.temperature == 0) return ids.front();
    std::vector<double> weights;
    for (size_t rank = 0; rank < ids.size(); ++rank) {
      if (sampling.top_k > 0 && static_cast<int64_t>(rank) >= sampling.top_k) break;
      weights.push_back(std::exp((at(rank) - at(0)) / sampling.temperature));
    }
    double all = 0, before = 0;
    for (const double weight : weights) all += weight;
    size_t stay = 0;
    margin = 1;
    for (; stay < weights.size(); before += weights[stay++]) {
      if (stay == 0) continue;
      const double least = sampling.min_p, most = sampling.top_p * all;
      if (least > 0) margin = std::min(margin, std::abs(weights[stay] - least) / std::max(weights[stay], least));
      if (sampling.top_p < 1) margin = std::min(margin, std::abs(before - most) / all);
      if (weights[stay] < least || before >= most) break;
    }
    double reached = 0;
    for (size_t rank = 0; rank < stay; ++rank) {
      reached += weights[rank];
      margin = std::min(margin, std::abs(reached - uniform * before) / before);
      if (reached > uniform * before) return ids[rank];
    }
    return ids[stay - 1];
  }
  void count(text::Token token) {
    seen.insert(token);
    ++generated[token];
  }
};

struct DrawnSettings {
  std::mt19937 random{20};

  template <class Value>
  Value one_of(std::initializer_list<Value> values) {
    return *(values.begin() + static_cast<std::ptrdiff_t>(random() % values.size()));
  }
  Sampling sampling() {
    Sampling drawn;
    drawn.temperature = one_of({0.0, 5e-324, 1e-300, 1e-3, 0.7, 1.0, 3.0, 1e300});
    drawn.top_k = one_of<int64_t>({0, 0, 1, 2, 7, reference_vocabulary, std::numeric_limits<int64_t>::max()});
    drawn.top_p = one_of({1.0, 1.0, 5e-324, 0.3, 0.9, 0.999});
    drawn.min_p = one_of({0.0, 0.0, 1e-300, 0.05, 0.999});
    drawn.repetition_penalty = one_of({1.0, 1.0, 0.5, 1.3, 1e30});
    drawn.frequency_penalty = one_of({0.0, 0.0, 0.4, -0.2});
    drawn.presence_penalty = one_of({0.0, 0.0, 1.5, -0.5});
    drawn.seed = random();
    for (int64_t left = one_of({0, 0, 3}); left > 0; --left)
      drawn.logit_bias.emplace_back(random() % reference_vocabulary, one_of({banned_bias, 2.0, -1.0, 1e30}));
    return drawn;
  }
  // Many of them equal, as logits in bfloat16 are.
  at::Tensor logits(int64_t rows) {
    at::Tensor drawn = at::empty({rows, reference_vocabulary});
    for (float& value : std::span(drawn.mutable_data_ptr<float>(), static_cast<size_t>(drawn.numel())))
      value = static_cast<float>(static_cast<int>(random() % 33) - 16) / 4;
    return drawn;
  }
};

std::vector<float> row_of(const at::Tensor& logits, size_t row) {
  const float* const begin = logits.const_data_ptr<float>() + static_cast<int64_t>(row) * logits.size(1);
  return {begin, begin + logits.size(1)};
}

TEST(SamplerReference, WhateverTheSettingsEachRowIsDrawnAsIfWrittenPlainly) {
  DrawnSettings drawn;
  int64_t compared = 0;
  for (int round = 0; round < 60; ++round) {
    std::vector<std::unique_ptr<Sampler>> samplers;
    std::vector<Sampler*> batch;
    std::vector<PlainSampler> plain;
    std::vector<int64_t> alternatives;
    const std::vector<text::Token> prompt = {1, 5, 5, 9};
    for (int row = 0; row < 6; ++row) {
      plain.push_back({drawn.sampling(), {prompt.begin(), prompt.end()}, {}});
      samplers.push_back(
          std::make_unique<Sampler>(plain.back().sampling, prompt, reference_vocabulary, at::Device(at::kCPU)));
      batch.push_back(samplers.back().get());
      alternatives.push_back(drawn.one_of<int64_t>({-1, 0, 1, 5, 20, 2 * reference_vocabulary}));
    }
    for (int step = 0; step < 12; ++step) {
      const at::Tensor logits = drawn.logits(6);
      std::vector<double> uniform(batch.size());
      std::ranges::transform(batch, uniform.begin(), [](const Sampler* sampler) { return sampler->uniform(); });
      const std::vector<Choice> choices = choose(logits, batch, alternatives);
      for (size_t row = 0; row < plain.size(); ++row) {
        SCOPED_TRACE("round " + std::to_string(round) + " step " + std::to_string(step) + " row " +
                     std::to_string(row));
        double margin = 0;
        const text::Token expected = plain[row].next(row_of(logits, row), uniform[row], margin);
        if (margin > 1e-5) {
          EXPECT_EQ(choices[row].token, expected);
          ++compared;
        }
        plain[row].count(choices[row].token);
      }
    }
  }
  EXPECT_GT(compared, 4000);
}

// Which of equals are told of is no matter of how many the neighbours ask for.
TEST(SamplerReference, AlternativesAreTheBestAndOfEqualsTheSmallerIds) {
  DrawnSettings drawn;
  for (int round = 0; round < 40; ++round) {
    const at::Tensor logits = drawn.logits(4);
    std::vector<std::unique_ptr<Sampler>> samplers;
    std::vector<Sampler*> batch;
    std::vector<int64_t> alternatives;
    for (int row = 0; row < 4; ++row) {
      samplers.push_back(std::make_unique<Sampler>(Sampling(), std::vector<text::Token>(), reference_vocabulary,
                                                   at::Device(at::kCPU)));
      batch.push_back(samplers.back().get());
      alternatives.push_back(drawn.one_of<int64_t>({0, 1, 2, 5, 20, 2 * reference_vocabulary}));
    }
    const std::vector<Choice> choices = choose(logits, batch, alternatives);
    for (size_t row = 0; row < batch.size(); ++row) {
      const std::vector<float> values = row_of(logits, row);
      const std::vector<text::Token> best = PlainSampler::ordered(values);
      double sum = 0;
      for (const float value : values) sum += std::exp(static_cast<double>(value));
      const std::vector<TokenLogProbability>& list = choices[row].log_probabilities;
      ASSERT_EQ(list.size(), static_cast<size_t>(1 + std::min(alternatives[row], reference_vocabulary)));
      for (size_t i = 0; i < list.size(); ++i) {
        EXPECT_EQ(list[i].token, i == 0 ? choices[row].token : best[i - 1]) << "round " << round << " place " << i;
        EXPECT_NEAR(list[i].log_probability, values[static_cast<size_t>(list[i].token)] - std::log(sum), 1e-5);
      }
    }
  }
}

}  // namespace
}  // namespace cepe::engine
