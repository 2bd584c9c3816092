// What a run refuses before its first step, and that nothing is left of it then.
#include <gtest/gtest.h>

#include "data/append_file.h"
#include "expect_error.h"
#include "model/initialise_random.h"
#include "model/save.h"
#include "train/trainer.h"
#include "training_runs.h"

namespace cepe::train {
namespace {

using base::ErrorCode;
using test::expect_error;
using test::left_by;

class Refusals : public test::QuietTrainingRuns {};

TEST_F(Refusals, AnotherRecipeInTheSameFolderIsRefusedByWhatDiffers) {
  const Recipe recipe = recipe_of("run");
  test::run(recipe);
  Recipe other = recipe;
  other.optimiser.rate = 0.5;
  expect_error(ErrorCode::invalid_argument, "there '  rate: 0.01', now '  rate: 0.5'", [&] { test::run(other); });
  other = recipe;
  other.seed = 7;
  expect_error(ErrorCode::invalid_argument, "there 'seed: 0', now 'seed: 7'", [&] { test::run(other); });
}

// Another corpus in the place of the run's; one of the same documents is the same.
TEST_F(Refusals, DataReplacedUnderARunIsRefusedUnlessAskedFor) {
  const Recipe recipe = recipe_of("run");
  const TrainOptions one_step = {.stop_after_seconds = 1e-9};
  const auto replace_corpus = [&](uint64_t seed) {
    std::filesystem::remove_all(folder / "corpus");
    test::write_corpus(folder / "corpus", 32, test::learnable_documents(40, 64, 32, seed));
  };
  train(recipe, one_step);
  replace_corpus(1);
  EXPECT_EQ(train(recipe, one_step).steps, 2);
  replace_corpus(2);
  expect_error(ErrorCode::mismatch, "data.corpus " + recipe.data.corpus, [&] { train(recipe, one_step); });
  train(recipe, {.export_only = true});
  EXPECT_EQ(train(recipe, {.stop_after_seconds = 1e-9, .allow_mismatch = true}).steps, 3);
  EXPECT_EQ(train(recipe, one_step).steps, 4) << "the data of the newest checkpoint is that of the run";
}

// Another decoder in the place of the run's, of the same shape; the same one anew is the same.
TEST_F(Refusals, ADecoderReplacedUnderARunIsRefusedUnlessAskedFor) {
  const base::Json config = base::Json::parse(test::content_of(config_));
  const auto replace_decoder = [&](uint64_t seed) {
    std::filesystem::remove_all(folder / "model");
    model::save_decoder(folder / "model",
                        model::random_decoder(model::read_decoder_config(config, "config.json"), seed), config);
  };
  Recipe recipe = recipe_of("run");
  recipe.decoder.config = "";
  recipe.decoder.model = (folder / "model").string();
  const TrainOptions one_step = {.stop_after_seconds = 1e-9};
  replace_decoder(1);
  train(recipe, one_step);
  replace_decoder(1);
  EXPECT_EQ(train(recipe, one_step).steps, 2);
  replace_decoder(2);
  const std::string what = "another decoder than is now decoder.model " + recipe.decoder.model;
  expect_error(ErrorCode::mismatch, what, [&] { train(recipe, one_step); });
  expect_error(ErrorCode::mismatch, what, [&] { train(recipe, {.export_only = true}); });
  EXPECT_EQ(train(recipe, {.stop_after_seconds = 1e-9, .allow_mismatch = true}).steps, 3);
}

TEST_F(Refusals, AConfigReplacedUnderARunIsRefused) {
  const Recipe recipe = recipe_of("run");
  const TrainOptions one_step = {.stop_after_seconds = 1e-9};
  train(recipe, one_step);
  base::Json config = base::Json::parse(test::content_of(config_));
  config["rope_theta"] = 500.0;
  folder.write("decoder/config.json", config.dump());
  expect_error(ErrorCode::mismatch, "decoder.config " + config_.string(), [&] { train(recipe, one_step); });
}

TEST_F(Refusals, ARunOfACheckpointThatDoesNotSayItsDataGoesOn) {
  const Recipe recipe = recipe_of("run");
  train(recipe, {.stop_after_seconds = 1e-9});
  CheckpointState state = left_by(recipe);
  state.state.erase("data");
  state.state.erase("decoder");
  std::filesystem::remove_all(base::Path(recipe.output) / "checkpoints");
  test::checkpoints_of(recipe).save(1, state);
  EXPECT_TRUE(test::run(recipe).finished);
  EXPECT_TRUE(left_by(recipe).state.contains("data"));
}

TEST_F(Refusals, AFolderThatAnotherRunUsesIsRefusedAndLeftAlone) {
  const Recipe recipe = recipe_of("taken");
  std::filesystem::create_directories(recipe.output);
  {
    const data::FolderLock other(recipe.output);
    expect_error(ErrorCode::invalid_argument, "another program is writing this folder", [&] { test::run(recipe); });
    EXPECT_TRUE(std::filesystem::is_empty(recipe.output));
  }
  EXPECT_TRUE(test::run(recipe).finished);
}

// It left logs and a copy of its recipe, in the way of the mended one.
TEST_F(Refusals, AFolderOfARunThatFailedAtItsFirstStepMayBeUsedAgain) {
  test::write_corpus(folder / "wide", 500, test::numbered_documents(1, 400));
  Recipe recipe = recipe_of("run");
  const std::string corpus = recipe.data.corpus;
  recipe.data.corpus = (folder / "wide").string();
  expect_error(ErrorCode::invalid_argument, "vocabulary", [&] { test::run(recipe); });
  const base::Path copy = base::Path(recipe.output) / "recipe.yaml";
  const std::string left = test::content_of(copy);
  recipe.data.corpus = corpus;
  folder.write("run/recipe.yaml", "# mine\n" + left);
  expect_error(ErrorCode::invalid_argument, "run/recipe.yaml: is there", [&] { test::run(recipe); });
  folder.write("run/recipe.yaml", left);
  EXPECT_TRUE(test::run(recipe).finished);
  EXPECT_EQ(test::content_of(copy), print_recipe(recipe, false));
}

TEST_F(Refusals, WindowsBeyondTheDecodersPositionsAreRefused) {
  Recipe recipe = recipe_of("run");
  recipe.phases[1].decoder_tokens = 520;
  expect_error(ErrorCode::invalid_argument,
               "phases.1.decoder_tokens 520; the decoder has 512 positions (decoder.rope_scaling",
               [&] { make_trainee(recipe, 32, {}, at::kCPU); });
  recipe.decoder.rope_scaling = "linear";
  recipe.decoder.rope_factor = 2;
  make_trainee(recipe, 32, {}, at::kCPU);
  recipe = recipe_of("run");
  recipe.validation = {.steps = 1, .decoder_tokens = 513};
  expect_error(ErrorCode::invalid_argument, "validation.decoder_tokens 513; the decoder has 512 positions",
               [&] { make_trainee(recipe, 32, {}, at::kCPU); });
}

TEST_F(Refusals, ATeacherThatReadsBeyondItsPositionsIsWarnedOf) {
  Recipe recipe = recipe_of("run");
  recipe.trainable = {"encoder"};
  recipe.phases[1] = {.steps = 1, .context_tokens = 504, .decoder_tokens = 8, .windows = 2};
  const auto said = [&](const char* stage) {
    recipe.stage = stage;
    testing::internal::CaptureStderr();
    base::set_log_level(base::LogLevel::warning);
    make_trainee(recipe, 32, {}, at::kCPU);
    base::set_log_level(base::LogLevel::error);
    return testing::internal::GetCapturedStderr();
  };
  EXPECT_NE(said("ceped").find("phases.1: the teacher reads context_tokens + windows * decoder_tokens = 520 tokens "
                               "directly; the decoder has 512 positions"),
            std::string::npos);
  EXPECT_EQ(said("cepe"), "");
}

TEST_F(Refusals, AFileInThePlaceOfTheFolderIsRefused) {
  Recipe recipe = recipe_of("file");
  folder.write("file", "mine");
  expect_error(ErrorCode::invalid_argument, "output: " + recipe.output + " is a file", [&] { test::run(recipe); });
}

TEST_F(Refusals, AMissingCorpusIsNamedAndLeavesNoFolder) {
  Recipe recipe = recipe_of("run");
  recipe.data.corpus = (folder / "nowhere").string();
  expect_error(ErrorCode::not_found, recipe.data.corpus, [&] { test::run(recipe); });
  EXPECT_FALSE(std::filesystem::exists(recipe.output));
}

TEST_F(Refusals, DocumentsThatAreTooShortAreAPlainError) {
  Recipe recipe = recipe_of("run");
  recipe.phases[1].windows = 64;
  expect_error(ErrorCode::invalid_argument,
               "phases.1 (context_tokens + windows * decoder_tokens = 1024): domain * (all domains that no other part "
               "names) has, in the training split, no document of at least 1024 tokens",
               [&] { test::run(recipe); });
  recipe = recipe_of("run");
  recipe.validation = {.steps = 1, .decoder_tokens = 8, .context_tokens = {0, 4096}};
  expect_error(ErrorCode::invalid_argument, "validation (context_tokens and decoder_tokens: 4104): domain",
               [&] { test::run(recipe); });
  EXPECT_FALSE(std::filesystem::exists(recipe.output));
}

TEST_F(Refusals, TokensThatTheDecoderDoesNotKnowAreAPlainError) {
  test::write_corpus(folder / "wide", 500, test::numbered_documents(1, 400));
  Recipe recipe = recipe_of("run");
  recipe.data.corpus = (folder / "wide").string();
  expect_error(ErrorCode::invalid_argument, "vocabulary", [&] { test::run(recipe); });
}

TEST_F(Refusals, ALayerThatTheDecoderLacksIsAPlainErrorWhateverTheEncoder) {
  Recipe recipe = recipe_of("run");
  for (const char* encoder : {"random", "decoder"}) {
    recipe.adapter.encoder = encoder;
    for (const char* layers : {"2", "0-99"}) {
      recipe.adapter.cross_attention_layers = layers;
      expect_error(ErrorCode::invalid_argument,
                   "adapter.cross_attention_layers: cross-attention in layer 2; the decoder has layers 0 to 1",
                   [&] { make_trainee(recipe, 32, {}, at::kCPU); });
    }
  }
}

TEST_F(Refusals, HeadsOfARandomEncoderHaveAnEvenWidth) {
  Recipe recipe = recipe_of("run");
  recipe.adapter.encoder_width = 10;
  for (const char* stage : {"cepe", "mlm"}) {
    recipe.stage = stage;
    recipe.trainable = {"encoder"};
    expect_error(ErrorCode::invalid_argument, "adapter.encoder_width 10: each of 2 adapter.encoder_heads gets 5",
                 [&] { make_trainee(recipe, 32, {}, at::kCPU); });
  }
}

TEST_F(Refusals, ALowRankPartThatTrainsNothingIsRefused) {
  Recipe recipe = recipe_of("run");
  recipe.trainable = {"low_rank"};
  recipe.decoder.low_rank = {.rank = 2, .targets = {}};
  const auto refused = [&](const char* stage, const char* why) {
    recipe.stage = stage;
    expect_error(ErrorCode::invalid_argument, why, [&] { make_trainee(recipe, 32, {}, at::kCPU); });
  };
  refused("decoder", "trainable: 'low_rank' needs decoder.low_rank.targets");
  refused("mlm", "trainable: 'low_rank' is not part of stage mlm");
}

}  // namespace
}  // namespace cepe::train
