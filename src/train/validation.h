// The objective on held-out text: the same target tokens with more and more of the text before them as context.
#pragma once

#include <cstdint>
#include <vector>

#include "data/sampler.h"
#include "train/recipe.h"
#include "train/trainee.h"

namespace cepe::train {

struct ValidationResult {
  int64_t context_tokens = 0;
  double nll = 0;  // nats a token
};

// By length of context; one result (a context of 0) for stages without any. The sampler must give samples of
// validation_tokens(recipe). Errors: base::Interrupted.
std::vector<ValidationResult> validate_on(const Trainee& trainee, const data::Sampler& held_out, const Recipe& recipe,
                                          int64_t mask_token, at::Device device);

// Tokens of a held-out sample: the longest context and the window.
int64_t validation_tokens(const Recipe& recipe);

}  // namespace cepe::train
