#include "train/batch_source.h"

#include "base/error.h"
#include "data/prepared_samples.h"

namespace cepe::train {
namespace {

data::Neighbours neighbours_of(const std::string& name) {
  if (name == "joint") return data::Neighbours::joint;
  return name == "separate" ? data::Neighbours::separate : data::Neighbours::none;
}

data::PreparedSettings prepared_settings(const Recipe& recipe, size_t phase, const model::CepeModel& model) {
  return {.tokens = recipe.data.samples,
          .stored_logits = recipe.data.stored_logits,
          .retrieved = recipe.data.retrieved,
          .neighbours = neighbours_of(recipe.data.neighbours),
          .context_tokens = recipe.phases[phase].context_tokens,
          .decoder_tokens = recipe.phases[phase].decoder_tokens,
          .chunk_tokens = recipe.adapter.chunk_size,
          .top = recipe.loss.top,
          .vocabulary = model.decoder.config.vocabulary,
          .encoder_vocabulary = model.adapter->encoder.embedding.out_features(),
          .seed = recipe.seed_of_data() + phase};
}

template <class Samples>
BatchSource batches_of(Samples samples) {
  return [samples = std::move(samples)](const BatchRequest& request, uint64_t first, int64_t count, at::Device device) {
    return make_batch(samples, request, first, count, device);
  };
}

}  // namespace

data::Sampler sampler_for(const data::TokenCorpus& corpus, const Recipe& recipe, int64_t tokens, uint64_t number,
                          data::Split split, const std::string& field) {
  try {
    return data::Sampler(corpus,
                         {.tokens = tokens,
                          .seed = recipe.seed_of_data() + number,
                          .held_out = recipe.data.held_out,
                          .mixture = recipe.data.mixture,
                          .without_empty_parts = split == data::Split::held_out},
                         split);
  } catch (const base::Error& error) {
    throw base::Error(error.code(), field + ": " + error.what());
  }
}

data::Sampler sampler_of_phase(const data::TokenCorpus& corpus, const Recipe& recipe, size_t number) {
  const int64_t tokens = sample_tokens(recipe.phases[number]);
  return sampler_for(corpus, recipe, tokens, number, data::Split::training,
                     "phases." + std::to_string(number) +
                         " (context_tokens + windows * decoder_tokens = " + std::to_string(tokens) + ")");
}

std::vector<BatchSource> batch_sources(const Recipe& recipe, const std::optional<data::TokenCorpus>& corpus,
                                       const Trainee& trainee) {
  std::vector<BatchSource> sources;
  for (size_t i = 0; i < recipe.phases.size(); ++i) {
    if (recipe.data.prepared()) {
      sources.push_back(batches_of(data::PreparedSamples(prepared_settings(recipe, i, trainee.model))));
    } else {
      sources.push_back(batches_of(sampler_of_phase(*corpus, recipe, i)));
    }
  }
  return sources;
}

}  // namespace cepe::train
