// The models of a run: what is frozen, what is trained, where it comes from and how it is saved.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/cepe_model.h"
#include "model/load.h"
#include "model/masked_language_model.h"
#include "train/parameters.h"
#include "train/recipe.h"

namespace cepe::train {

struct Trainee {
  std::optional<model::ModelSource> source;          // of the decoder, where it was loaded
  base::Json decoder_config;                         // config.json's content of a decoder made from nothing
  model::CepeModel model;                            // stage mlm: only the decoder is there, where the recipe names one
  std::optional<model::MaskedLanguageModel> masked;  // stage mlm
  std::string decoder_name;                          // for people
  std::vector<Parameter> parameters;
};

// Loads and makes what the recipe says; the trained tensors are leaves of their own in the type of computing,
// everything else is frozen. On the heap: parameters refer to it. `cache` is where the default model is, `vocabulary`
// the corpus's. Errors: as those of loading; invalid_argument for parts that the stage has not, naming the field.
std::unique_ptr<Trainee> make_trainee(const Recipe& recipe, int64_t vocabulary, const base::Path& cache,
                                      at::Device device);

// Ids below it are tokens to every part of the model.
int64_t vocabulary_of(const Trainee& trainee);

// Writes what was trained into `folder`: an adapter folder, for stage decoder a model folder (a LoRA merged), for stage
// mlm a LlamaForMLM folder. Where an adapter's decoder was trained too, or made from nothing, it goes to
// `folder`/decoder. `final_weight` gives for a leaf what is saved in its place (its float32 master).
void export_trained(const base::Path& folder, const Trainee& trainee,
                    const std::function<at::Tensor(const at::Tensor& leaf)>& final_weight);

}  // namespace cepe::train
