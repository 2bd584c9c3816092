#include "engine/sampler.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <set>
#include <string>

#include "base/error.h"

namespace cepe::engine {
namespace {

// Of biases and factors, so that a float32 logit with all of them stays finite: infinite ones of both signs are NaN.
constexpr double largest = 1e30;

void check(bool holds, const std::string& option, const char* range, double value) {
  if (holds) return;
  char number[32];
  std::snprintf(number, sizeof number, "%g", value);
  throw base::Error(base::ErrorCode::invalid_argument, option + " is " + number + "; it must be " + range);
}

at::Tensor there(const std::vector<int64_t>& values, at::Device device) {
  return at::tensor(values, at::kLong).to(device);
}

// A column [R, 1] float64 of one number a row.
template <class Number>
at::Tensor column(std::span<Sampler* const> samplers, at::Device device, const Number& number) {
  std::vector<double> values;
  values.reserve(samplers.size());
  for (Sampler* sampler : samplers) values.push_back(static_cast<double>(number(*sampler)));
  return at::tensor(values, at::kDouble).to(device).unsqueeze(1);
}

struct Candidates {
  at::Tensor logits, ids;  // [R, n], best first, of equals the smaller id
};

// float32 [R, V] -> int64 [R, V]: in the order of the values, and of equals the smaller id above: no two are the same,
// so that nobody's order depends on how many the other rows want.
at::Tensor order_of(const at::Tensor& logits) {
  const at::Tensor bits = logits.contiguous().view(at::kInt);
  const at::Tensor ascending = at::where(bits < 0, bits.bitwise_xor(std::numeric_limits<int32_t>::max()), bits);
  const int64_t last = logits.size(1) - 1;
  const at::Tensor ids = at::arange(last, -1, -1, bits.options().dtype(at::kLong));
  return ascending.to(at::kLong).mul_(int64_t{1} << 32).add_(ids);
}

// [R, most] or, where there are no more, all of them.
at::Tensor best_ids(const at::Tensor& logits, int64_t most) {
  const at::Tensor order = order_of(logits);
  return most < logits.size(1) ? std::get<1>(at::topk(order, most)) : order.argsort(1, true);
}

// As many of the best as any row may take.
Candidates candidates(const at::Tensor& logits, std::span<Sampler* const> samplers) {
  int64_t most = 0;
  for (const Sampler* sampler : samplers) {
    const int64_t wanted = sampler->sampling().top_k;
    most = wanted == 0 ? logits.size(1) : std::max(most, wanted);
    if (wanted == 0) break;
  }
  const at::Tensor ids = best_ids(logits, most);
  return {logits.gather(1, ids), ids};
}

// Rows with a temperature: logits [R, V] -> tokens [R] int64. The inverse of the cumulative distribution of what top-k,
// top-p and min-p leave, best first, at one uniform number a row.
at::Tensor draw(const at::Tensor& logits, std::span<Sampler* const> samplers) {
  const at::Device device = logits.device();
  const Candidates found = candidates(logits, samplers);
  const at::Tensor temperature = column(samplers, device, [](Sampler& s) { return s.sampling().temperature; });
  const at::Tensor top_k = column(
      samplers, device, [&](Sampler& s) { return s.sampling().top_k > 0 ? s.sampling().top_k : logits.size(1); });
  const at::Tensor top_p = column(samplers, device, [](Sampler& s) { return s.sampling().top_p; });
  const at::Tensor min_p = column(samplers, device, [](Sampler& s) { return s.sampling().min_p; });
  const at::Tensor uniform = column(samplers, device, [](Sampler& s) { return s.uniform(); });

  const at::Tensor rank = at::arange(found.ids.size(1), at::TensorOptions(device).dtype(at::kLong)).unsqueeze(0);
  at::Tensor weights = at::exp((found.logits - found.logits.narrow(1, 0, 1)).to(at::kDouble) / temperature);
  weights = weights * (rank < top_k);
  const at::Tensor up_to = at::cumsum(weights, 1), before = up_to - weights;  // of everything better
  const at::Tensor all = up_to.narrow(1, up_to.size(1) - 1, 1);  // not by sum(): how it adds depends on the length
  const at::Tensor stays = ((before < top_p * all) & (weights >= min_p)) | (rank == 0);  // the best weighs 1
  const at::Tensor summed = at::cumsum(weights * stays, 1);
  const at::Tensor last = (stays & (rank < top_k)).sum(1, true) - 1;
  const at::Tensor place = (summed <= uniform * summed.narrow(1, summed.size(1) - 1, 1)).sum(1, true).minimum(last);
  return found.ids.gather(1, place).squeeze(1);
}

// [R, V] with penalties and biases; the logits themselves where there are none.
at::Tensor modified(const at::Tensor& logits, std::span<Sampler* const> samplers) {
  const auto modifies = [](const Sampler* sampler) { return sampler->modifies(); };
  if (std::none_of(samplers.begin(), samplers.end(), modifies)) return logits;
  at::Tensor changed = logits.clone();
  for (size_t i = 0; i < samplers.size(); ++i) {
    if (samplers[i]->modifies()) samplers[i]->modify(changed[static_cast<int64_t>(i)]);
  }
  return changed;
}

at::Tensor chosen_tokens(const at::Tensor& logits, std::span<Sampler* const> samplers) {
  std::vector<int64_t> rows;
  std::vector<Sampler*> drawing;
  for (size_t i = 0; i < samplers.size(); ++i) {
    if (samplers[i]->sampling().temperature == 0) continue;
    rows.push_back(static_cast<int64_t>(i));
    drawing.push_back(samplers[i]);
  }
  if (drawing.size() == samplers.size()) return draw(logits, drawing);
  at::Tensor chosen = at::argmax(logits, 1);
  if (drawing.empty()) return chosen;
  const at::Tensor places = there(rows, logits.device());
  return chosen.index_copy(0, places, draw(logits.index_select(0, places), drawing));
}

// [R, 2 + 2 * n] float64: token, its log-probability, the n best tokens, theirs; n = most, or all.
at::Tensor with_log_probabilities(const at::Tensor& logits, const at::Tensor& chosen, int64_t most) {
  const at::Tensor values = at::log_softmax(logits, 1);
  const at::Tensor tokens = chosen.unsqueeze(1);
  const at::Tensor ids = best_ids(logits, most);
  return at::cat({tokens.to(at::kDouble), values.gather(1, tokens).to(at::kDouble), ids.to(at::kDouble),
                  values.gather(1, ids).to(at::kDouble)},
                 1)
      .to(at::kCPU)
      .contiguous();
}

std::vector<TokenLogProbability> listed(const double* row, int64_t found, int64_t wanted) {
  std::vector<TokenLogProbability> list = {{static_cast<text::Token>(row[0]), static_cast<float>(row[1])}};
  for (int64_t i = 0; i < std::min(found, wanted); ++i)
    list.push_back({static_cast<text::Token>(row[2 + i]), static_cast<float>(row[2 + found + i])});
  return list;
}

std::vector<Choice> choices_of(const at::Tensor& logits, std::span<Sampler* const> samplers,
                               std::span<const int64_t> alternatives) {
  const at::Tensor chosen = chosen_tokens(modified(logits, samplers), samplers);
  const int64_t most = *std::max_element(alternatives.begin(), alternatives.end());
  std::vector<Choice> choices(samplers.size());
  if (most < 0) {
    const at::Tensor tokens = chosen.masked_fill(logits.sum(1).isnan(), no_token).to(at::kCPU);
    for (size_t i = 0; i < choices.size(); ++i)
      choices[i].token = static_cast<text::Token>(tokens.const_data_ptr<int64_t>()[i]);
    return choices;
  }
  const at::Tensor table = with_log_probabilities(logits, chosen, most);
  const int64_t width = table.size(1);
  for (size_t i = 0; i < choices.size(); ++i) {
    const double* row = table.const_data_ptr<double>() + static_cast<int64_t>(i) * width;
    choices[i].token = std::isnan(row[1]) ? no_token : static_cast<text::Token>(row[0]);
    if (alternatives[i] >= 0) choices[i].log_probabilities = listed(row, (width - 2) / 2, alternatives[i]);
  }
  return choices;
}

}  // namespace

void validate(const Sampling& sampling) {
  check(sampling.temperature >= 0 && std::isfinite(sampling.temperature), "--temperature", "0 (greedy) or more",
        sampling.temperature);
  check(sampling.top_p > 0 && sampling.top_p <= 1, "--top-p", "above 0 and at most 1", sampling.top_p);
  check(sampling.top_k >= 0, "--top-k", "0 (all) or more", static_cast<double>(sampling.top_k));
  check(sampling.min_p >= 0 && sampling.min_p < 1, "--min-p", "from 0 to below 1", sampling.min_p);
  check(sampling.repetition_penalty >= 1 / largest && sampling.repetition_penalty <= largest, "--repetition-penalty",
        "above 0, from 1e-30 to 1e30", sampling.repetition_penalty);
  check(std::abs(sampling.frequency_penalty) <= 100, "--frequency-penalty", "from -100 to 100",
        sampling.frequency_penalty);
  check(std::abs(sampling.presence_penalty) <= 100, "--presence-penalty", "from -100 to 100",
        sampling.presence_penalty);
  for (const auto& [token, bias] : sampling.logit_bias)
    check(std::abs(bias) <= largest || bias == -std::numeric_limits<double>::infinity(),
          "--logit-bias of token " + std::to_string(token), "from -1e30 to 1e30, or -infinity", bias);
}

void validate(const Sampling& sampling, int64_t vocabulary) {
  validate(sampling);
  std::set<text::Token> banned;
  for (const auto& [token, bias] : sampling.logit_bias) {
    check(token >= 0 && token < vocabulary, "a token of --logit-bias", "in the vocabulary", token);
    if (std::isinf(bias)) banned.insert(token);
  }
  if (static_cast<int64_t>(banned.size()) < vocabulary) return;
  throw base::Error(base::ErrorCode::invalid_argument,
                    "--logit-bias bans all " + std::to_string(vocabulary) +
                        " tokens of the vocabulary with -infinity: leave at least one that may be chosen");
}

Sampler::Sampler(Sampling sampling, std::span<const text::Token> prompt, int64_t vocabulary, at::Device device)
    : sampling_(std::move(sampling)), random_(sampling_.seed), uniform_(draw()) {
  validate(sampling_, vocabulary);
  std::vector<int64_t> tokens;
  std::vector<float> biases;
  for (const auto& [token, bias] : sampling_.logit_bias) {
    tokens.push_back(token);
    biases.push_back(static_cast<float>(bias));
  }
  if (!tokens.empty()) {
    biased_tokens_ = there(tokens, device);
    bias_ = at::tensor(biases, at::kFloat).to(device);
  }
  if (!penalises()) return;
  seen_ = at::zeros({vocabulary}, at::TensorOptions(device).dtype(at::kBool));
  counts_ = at::zeros({vocabulary}, at::TensorOptions(device).dtype(at::kFloat));
  one_ = at::ones({}, counts_.options());
  if (!prompt.empty()) seen_.index_fill_(0, there({prompt.begin(), prompt.end()}, device), true);
}

bool Sampler::penalises() const {
  return sampling_.repetition_penalty != 1 || sampling_.frequency_penalty != 0 || sampling_.presence_penalty != 0;
}

void Sampler::modify(const at::Tensor& logits) const {
  if (penalises()) {
    const double repetition = sampling_.repetition_penalty;
    const at::Tensor repeated = at::where(logits > 0, logits / repetition, logits * repetition);
    logits.copy_(at::where(seen_, repeated, logits) - counts_ * sampling_.frequency_penalty -
                 (counts_ > 0) * sampling_.presence_penalty);
  }
  if (bias_.defined()) logits.index_add_(0, biased_tokens_, bias_);
}

void Sampler::count(text::Token token) {
  uniform_ = draw();
  if (!penalises()) return;
  seen_.select(0, token).copy_(one_);
  counts_.select(0, token).add_(one_);
}

std::vector<Choice> choose(const at::Tensor& logits, std::span<Sampler* const> samplers,
                           std::span<const int64_t> alternatives) {
  std::vector<Choice> choices = choices_of(logits, samplers, alternatives);
  for (size_t i = 0; i < samplers.size(); ++i) {
    if (choices[i].token != no_token) samplers[i]->count(choices[i].token);
  }
  return choices;
}

}  // namespace cepe::engine
