#include "train/memory_check.h"

#include "expect_error.h"
#include "training_runs.h"

namespace cepe::train {
namespace {

using MemoryCheck = test::TrainingRuns;

std::unique_ptr<Trainee> trainee_of(const Recipe& recipe) {
  return make_trainee(recipe, test::DecoderShape().vocabulary, {}, at::kCPU);
}

TEST_F(MemoryCheck, ADecoderMadeFromNothingIsCountedAsItIsMade) {
  const std::unique_ptr<Trainee> trainee = trainee_of(recipe_of("none"));
  EXPECT_EQ(random_decoder_bytes(trainee->model.decoder.config), weight_bytes(trainee->model.decoder));
}

TEST_F(MemoryCheck, AnOptimisersStatesAreCountedAsTheyAreKept) {
  Recipe recipe = recipe_of("none");
  for (const bool master_weights : {true, false}) {
    recipe.optimiser.master_weights = master_weights;
    const std::unique_ptr<Trainee> trainee = trainee_of(recipe);
    Optimiser optimiser(trainee->parameters, recipe.optimiser, 1);
    int64_t values = count(trainee->parameters);  // of the sums
    optimiser.visit([&](const std::string& name, at::Tensor& tensor) {
      if (master_weights || !name.starts_with("master.")) values += tensor.numel();  // else it is the weight itself
    });
    EXPECT_EQ(optimiser_bytes(trainee->parameters, recipe.optimiser), 4 * values);
  }
}

TEST_F(MemoryCheck, AMicroBatchIsCountedByTheLayersThatGradientsPass) {
  Recipe recipe = recipe_of("none");
  PhaseSettings phase = {.steps = 1, .batch = 6, .micro_batch = 2, .decoder_tokens = 8, .windows = 3};
  constexpr int64_t rows = 48, width = 16, inner = 64, heads = 32;  // of 2 samples: 3 windows of 8 tokens
  EXPECT_EQ(micro_batch_bytes(*trainee_of(recipe), recipe, phase), 4 * rows * 2 * (width + inner + heads));
  recipe.recompute = true;
  EXPECT_EQ(micro_batch_bytes(*trainee_of(recipe), recipe, phase), 4 * rows * 2 * width);
  recipe.trainable = {"encoder", "cross_attention"};
  EXPECT_EQ(micro_batch_bytes(*trainee_of(recipe), recipe, phase), 4 * rows * 1 * width);
  phase.micro_batch = 0;
  EXPECT_EQ(micro_batch_bytes(*trainee_of(recipe), recipe, phase), 3 * (4 * rows * 1 * width));
  phase.no_context = 1;
  EXPECT_EQ(micro_batch_bytes(*trainee_of(recipe), recipe, phase), 0);
}

TEST_F(MemoryCheck, WhatDoesNotFitIsRefusedWithFiguresAndTheFieldsThatLowerThem) {
  Recipe recipe = recipe_of("none");
  const std::unique_ptr<Trainee> trainee = trainee_of(recipe);
  const auto refused = [](const std::string& says, auto check) {
    test::expect_error(base::ErrorCode::out_of_memory, says, check);
  };
  refused("config.json: its weights need 22.31 KiB of memory; 1.00 KiB are available",
          [&] { check_decoder_memory(trainee->model.decoder.config, "config.json", 1024); });
  refused("trained weights need", [&] { check_optimiser_memory(*trainee, recipe, 1024); });
  recipe.phases[1].micro_batch = int64_t{1} << 61;
  refused("Lower phases.1.micro_batch or set recompute=true",
          [&] { check_micro_batch_memory(*trainee, recipe, int64_t{1} << 40); });
  recipe.phases[1].micro_batch = 2;
  EXPECT_NO_THROW(check_micro_batch_memory(*trainee, recipe, int64_t{1} << 40));
}

}  // namespace
}  // namespace cepe::train
