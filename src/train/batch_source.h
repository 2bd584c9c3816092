// Where the batches of a phase come from: text of a corpus, or samples prepared beforehand.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "data/sampler.h"
#include "data/token_corpus.h"
#include "train/batch.h"
#include "train/recipe.h"
#include "train/trainee.h"

namespace cepe::train {

// make_batch of one phase's samples; pure, and from any number of threads.
using BatchSource = std::function<Batch(const BatchRequest& request, uint64_t first, int64_t count, at::Device device)>;

// By phase. `corpus` is there where the recipe names one. Errors: those of data::Sampler and data::PreparedSamples.
std::vector<BatchSource> batch_sources(const Recipe& recipe, const std::optional<data::TokenCorpus>& corpus,
                                       const Trainee& trainee);

// Samples of N = `tokens` of the corpus; number: each user's own, so that they see other samples; field: of the recipe,
// for messages. Errors: those of data::Sampler, behind `field`.
data::Sampler sampler_for(const data::TokenCorpus& corpus, const Recipe& recipe, int64_t tokens, uint64_t number,
                          data::Split split, const std::string& field);

}  // namespace cepe::train
