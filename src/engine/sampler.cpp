#include "engine/sampler.h"

#include <ATen/ops/log_softmax.h>
#include <ATen/ops/topk.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <unordered_map>

#include "base/error.h"

namespace cepe::engine {
namespace {

struct Candidate {
  text::Token token;
  float logit;
};

void check(bool holds, const char* option, const char* range, double value) {
  if (holds) return;
  throw base::Error(base::ErrorCode::invalid_argument,
                    std::string(option) + " is " + std::to_string(value) + "; it must be " + range);
}

void penalise(const Sampling& sampling, std::span<const text::Token> prompt, std::span<const text::Token> generated,
              std::span<float> logits) {
  std::unordered_map<text::Token, int64_t> counts;  // generated tokens, and prompt tokens with 0
  for (const text::Token token : prompt) counts.try_emplace(token, 0);
  for (const text::Token token : generated) ++counts[token];
  for (const auto& [token, count] : counts) {
    float& logit = logits[static_cast<size_t>(token)];
    const auto repetition = static_cast<float>(sampling.repetition_penalty);
    logit = logit > 0 ? logit / repetition : logit * repetition;
    if (count > 0)
      logit -= static_cast<float>(sampling.presence_penalty + sampling.frequency_penalty * static_cast<double>(count));
  }
}

// Keeps the best candidates in order, then cuts by top-p and min-p; probabilities are of what is left.
std::vector<double> cut(const Sampling& sampling, std::vector<Candidate>& candidates) {
  const auto better = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  };
  const auto size = static_cast<int64_t>(candidates.size());
  const int64_t kept = sampling.top_k > 0 ? std::min(sampling.top_k, size) : size;
  std::partial_sort(candidates.begin(), candidates.begin() + kept, candidates.end(), better);
  candidates.resize(static_cast<size_t>(kept));

  std::vector<double> weights;
  weights.reserve(candidates.size());
  for (const Candidate& candidate : candidates)
    weights.push_back(std::exp((candidate.logit - candidates.front().logit) / sampling.temperature));
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  double before = 0;  // probability of everything better than this candidate
  size_t count = 0;
  for (; count < weights.size(); ++count) {
    if (count > 0 && (before >= sampling.top_p * total || weights[count] < sampling.min_p * weights.front())) break;
    before += weights[count];
  }
  candidates.resize(count);
  weights.resize(count);
  return weights;
}

}  // namespace

void validate(const Sampling& sampling) {
  check(sampling.temperature >= 0 && std::isfinite(sampling.temperature), "temperature", "0 (greedy) or more",
        sampling.temperature);
  check(sampling.top_p > 0 && sampling.top_p <= 1, "top-p", "above 0 and at most 1", sampling.top_p);
  check(sampling.top_k >= 0, "top-k", "0 (all) or more", static_cast<double>(sampling.top_k));
  check(sampling.min_p >= 0 && sampling.min_p < 1, "min-p", "from 0 to below 1", sampling.min_p);
  check(sampling.repetition_penalty > 0 && std::isfinite(sampling.repetition_penalty), "repetition-penalty", "above 0",
        sampling.repetition_penalty);
  check(std::abs(sampling.frequency_penalty) <= 100, "frequency-penalty", "from -100 to 100",
        sampling.frequency_penalty);
  check(std::abs(sampling.presence_penalty) <= 100, "presence-penalty", "from -100 to 100", sampling.presence_penalty);
}

Sampler::Sampler(const Sampling& sampling) : sampling_(sampling), random_(sampling.seed) { validate(sampling); }

text::Token Sampler::sample(const at::Tensor& logits, std::span<const text::Token> prompt,
                            std::span<const text::Token> generated) {
  const at::Tensor local = logits.to(at::kCPU, at::kFloat).contiguous().clone();
  const std::span<float> values(local.data_ptr<float>(), static_cast<size_t>(local.numel()));
  if (sampling_.repetition_penalty != 1 || sampling_.frequency_penalty != 0 || sampling_.presence_penalty != 0) {
    penalise(sampling_, prompt, generated, values);
  }
  if (sampling_.temperature == 0)
    return static_cast<text::Token>(std::max_element(values.begin(), values.end()) - values.begin());

  std::vector<Candidate> candidates(values.size());
  for (size_t i = 0; i < values.size(); ++i) candidates[i] = {static_cast<text::Token>(i), values[i]};
  const std::vector<double> weights = cut(sampling_, candidates);
  double left =
      std::uniform_real_distribution<double>(0, std::accumulate(weights.begin(), weights.end(), 0.0))(random_);
  for (size_t i = 0; i + 1 < weights.size(); ++i) {
    left -= weights[i];
    if (left < 0) return candidates[i].token;
  }
  return candidates.back().token;
}

std::vector<TokenLogProbability> top_log_probabilities(const at::Tensor& logits, text::Token chosen, int64_t count) {
  const at::Tensor values = at::log_softmax(logits.to(at::kCPU, at::kFloat), -1);
  std::vector<TokenLogProbability> list = {{chosen, values[chosen].item<float>()}};
  if (count <= 0) return list;
  const auto [best, ids] = at::topk(values, std::min(count, values.size(0)));
  for (int64_t i = 0; i < best.size(0); ++i)
    list.push_back({static_cast<text::Token>(ids[i].item<int64_t>()), best[i].item<float>()});
  return list;
}

}  // namespace cepe::engine
