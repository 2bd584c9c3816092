#include "train/validation.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "base/interrupt.h"
#include "train/batch.h"
#include "train/objective.h"

namespace cepe::train {
namespace {

bool has_context(const Recipe& recipe) {
  const Stage stage = stage_of(recipe.stage);
  return stage == Stage::cepe || stage == Stage::ceped;
}

std::vector<int64_t> lengths_of(const Recipe& recipe) {
  std::vector<int64_t> lengths = recipe.validation.context_tokens;
  if (!has_context(recipe) || lengths.empty()) return {0};
  std::sort(lengths.begin(), lengths.end());
  return lengths;
}

int64_t window_of(const Recipe& recipe) {
  const int64_t wanted = recipe.validation.decoder_tokens;
  return wanted > 0 ? wanted : recipe.phases.back().decoder_tokens;
}

}  // namespace

int64_t validation_tokens(const Recipe& recipe) { return lengths_of(recipe).back() + window_of(recipe); }

std::vector<ValidationResult> validate_on(const Trainee& trainee, const data::Sampler& held_out, const Recipe& recipe,
                                          int64_t mask_token, at::Device device) {
  const at::NoGradGuard none;
  const std::vector<int64_t> lengths = lengths_of(recipe);
  Recipe plain = recipe;  // cross-entropy alone, whatever is trained on
  if (stage_of(recipe.stage) == Stage::ceped) plain.stage = "cepe";
  plain.loss.cross_entropy = 1;
  BatchRequest request = {.stage = stage_of(plain.stage), .chunk_size = recipe.adapter.chunk_size};
  request.phase.context_tokens = lengths.back();
  request.phase.decoder_tokens = window_of(recipe);
  request.phase.windows = 1;
  request.mask = recipe.loss.mask;
  request.mask_token = static_cast<text::Token>(mask_token);
  request.vocabulary = vocabulary_of(trainee);
  std::vector<ValidationResult> results;
  results.reserve(lengths.size());
  for (const int64_t length : lengths) results.push_back({length, 0});
  double weight = 0;
  for (int64_t sample = 0; sample < recipe.validation.samples; ++sample) {
    Batch batch = make_batch(held_out, request, static_cast<uint64_t>(sample), 1, device);
    const double share = batch.weight();
    weight += share;
    for (ValidationResult& result : results) {
      base::throw_if_interrupted();
      if (has_context(recipe)) batch.slices = {{lengths.back() - result.context_tokens, result.context_tokens, 0}};
      result.nll += share * objective(trainee, batch, plain).cross_entropy.item<double>();
    }
  }
  for (ValidationResult& result : results) result.nll /= std::max(weight, 1.0);
  return results;
}

}  // namespace cepe::train
