// The loop: what a run leaves, going on after a stop, and steps that go wrong.
#include "train/trainer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <limits>

#include "expect_error.h"
#include "golden_tensors.h"
#include "model/adapter.h"
#include "model/load.h"
#include "model/save.h"
#include "train/parameters.h"
#include "training_runs.h"

namespace cepe::train {
namespace {

using base::ErrorCode;
using test::expect_error;
using test::left_by;

class Trainers : public test::QuietTrainingRuns {
 protected:
  // Runs and stops after every step, as often as it takes.
  static int run_in_pieces(const Recipe& recipe) {
    for (int pieces = 1;; ++pieces) {
      const TrainResult result = train(recipe, {.stop_after_seconds = 1e-9});
      if (result.finished) return pieces;
      EXPECT_EQ(result.steps, pieces);
      if (pieces > 50) return pieces;
    }
  }
};

void expect_same_state(const CheckpointState& found, const CheckpointState& wanted) {
  ASSERT_EQ(found.tensors.size(), wanted.tensors.size());
  for (size_t i = 0; i < found.tensors.size(); ++i) {
    EXPECT_EQ(found.tensors[i].first, wanted.tensors[i].first);
    EXPECT_TRUE(test::same_bits(found.tensors[i].second, wanted.tensors[i].second)) << found.tensors[i].first;
  }
  EXPECT_EQ(found.state, wanted.state);
}

struct Kind {
  const char* name;
  const char* optimiser;
  const char* dtype;
  bool master_weights;
};

class Resumed : public Trainers, public testing::WithParamInterface<Kind> {};

// Over the border of the phases, with variations and accumulation: steps 1 to 3 are of the first phase.
TEST_P(Resumed, RunIsBitEqualToOneThatNeverStopped) {
  const auto configured = [&](const std::string& output) {
    Recipe recipe = recipe_of(output);
    recipe.optimiser.kind = GetParam().optimiser;
    recipe.decoder.dtype = GetParam().dtype;
    recipe.optimiser.master_weights = GetParam().master_weights;
    recipe.optimiser.weight_decay = 0.01;
    recipe.phases[1].short_context = recipe.phases[1].no_context = recipe.phases[1].others = 0.5;
    recipe.phases[1].other_tokens = 8;
    return recipe;
  };
  const Recipe whole = configured("whole"), pieces = configured("pieces");
  ASSERT_TRUE(test::run(whole).finished);
  ASSERT_EQ(run_in_pieces(pieces), 6);
  expect_same_state(left_by(pieces), left_by(whole));
  for (const char* file : {"adapter.safetensors", "config.json"}) {
    EXPECT_EQ(test::content_of(base::Path(pieces.output) / "result" / file),
              test::content_of(base::Path(whole.output) / "result" / file));
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, Resumed,
                         testing::Values(Kind{"AdamW", "adamw", "float32", true},
                                         Kind{"AdamWMasterWeights", "adamw", "bfloat16", true},
                                         Kind{"AdamWStochasticRounding", "adamw", "bfloat16", false},
                                         Kind{"Muon", "muon", "float32", true},
                                         Kind{"MuonStochasticRounding", "muon", "bfloat16", false}),
                         [](const auto& one) { return std::string(one.param.name); });

TEST_F(Trainers, ARunGoesOnFromTheNewestCheckpointAndFromTheOneBeforeADamagedOne) {
  Recipe recipe = recipe_of("run"), whole = recipe_of("whole");
  recipe.checkpoint.steps = 2;
  recipe.checkpoint.keep = 3;
  ASSERT_TRUE(test::run(whole).finished);
  ASSERT_TRUE(test::run(recipe).finished);
  EXPECT_EQ(test::checkpoints_of(recipe).steps(), (std::vector<int64_t>{2, 4, 6}));
  const base::Path newest = base::Path(recipe.output) / "checkpoints" / "step-00000006" / "tensors.safetensors";
  std::filesystem::resize_file(newest, std::filesystem::file_size(newest) - 1);
  ASSERT_TRUE(test::run(recipe).finished);
  expect_same_state(left_by(recipe), left_by(whole));
}

TEST_F(Trainers, AFinishedRunOnlyTellsSo) {
  const Recipe recipe = recipe_of("run");
  ASSERT_TRUE(test::run(recipe).finished);
  const CheckpointState before = left_by(recipe);
  const TrainResult again = test::run(recipe);
  EXPECT_TRUE(again.finished);
  EXPECT_EQ(again.steps, 6);
  expect_same_state(left_by(recipe), before);
}

// Steps of whole batches and of their parts, one after the other.
void expect_same_steps(const Recipe& whole, const Recipe& parts) {
  test::run(whole);
  test::run(parts);
  const CheckpointState a = left_by(whole), b = left_by(parts);
  for (size_t i = 0; i < a.tensors.size(); ++i)
    EXPECT_LE(test::distance(b.tensors[i].second, a.tensors[i].second), 2e-3) << a.tensors[i].first;
  for (const char* field : {"loss", "gradient_norm"}) {
    const auto last = [&](const Recipe& recipe) { return test::metrics_of(recipe).back().at(field).get<double>(); };
    EXPECT_NEAR(last(parts), last(whole), 1e-3 * last(whole)) << field;
  }
}

TEST_F(Trainers, PartsGiveTheStepOfTheWholeBatch) {
  Recipe whole = recipe_of("whole"), parts = recipe_of("parts");
  whole.phases = parts.phases = {{.steps = 4, .batch = 4, .context_tokens = 8, .decoder_tokens = 8, .windows = 2}};
  parts.phases[0].micro_batch = 1;
  parts.optimiser.clip = whole.optimiser.clip = 0.5;
  expect_same_steps(whole, parts);
}

// Each masked token counts the same, however many the rest of its micro-batch has.
TEST_F(Trainers, PartsWithMoreAndWithFewerMaskedTokensGiveTheStepOfTheWholeBatch) {
  Recipe whole = recipe_of("whole"), parts = recipe_of("parts");
  whole.stage = parts.stage = "mlm";
  whole.trainable = parts.trainable = {"encoder"};
  whole.phases = parts.phases = {{.steps = 4, .batch = 4, .decoder_tokens = 8, .windows = 1}};
  parts.phases[0].micro_batch = 1;
  expect_same_steps(whole, parts);
}

TEST_F(Trainers, MetricsTellLossRateAndHeldOutText) {
  Recipe recipe = recipe_of("run");
  recipe.log_steps = 1;
  recipe.data.held_out = 0.2;
  recipe.schedule = {.kind = "linear", .warm_up = 0.5, .decay_from = 0};
  recipe.validation = {.steps = 3, .samples = 2, .decoder_tokens = 8, .context_tokens = {0, 8, 16}};
  test::run(recipe);
  std::vector<int64_t> steps, validated;
  for (const base::Json& line : test::metrics_of(recipe)) {
    if (line.contains("held_out_nll")) {
      validated.push_back(line.at("step"));
      EXPECT_EQ(line.at("held_out_nll").size(), 3U);
      for (const auto& [tokens, nll] : line.at("held_out_nll").items())
        EXPECT_NEAR(nll.get<double>(), 3.2, 1) << tokens;
      continue;
    }
    steps.push_back(line.at("step"));
    for (const char* field :
         {"loss", "cross_entropy", "rate", "gradient_norm", "tokens_per_second", "tflops", "peak_memory_bytes"})
      EXPECT_GT(line.at(field).get<double>(), 0) << field;
    const std::vector<double> shares = {1.0 / 3, 2.0 / 3, 1, 1, 2.0 / 3, 1.0 / 3};
    EXPECT_NEAR(line.at("rate").get<double>(), 1e-2 * shares[static_cast<size_t>(steps.back() - 1)], 1e-12);
  }
  EXPECT_EQ(steps, (std::vector<int64_t>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(validated, (std::vector<int64_t>{3, 6}));
}

TEST_F(Trainers, MetricsOfARunThatWentOnHaveEachStepOnce) {
  Recipe recipe = recipe_of("run");
  recipe.log_steps = 1;
  recipe.checkpoint.steps = 2;
  recipe.checkpoint.keep = 3;
  test::run(recipe);
  std::filesystem::remove_all(base::Path(recipe.output) / "checkpoints" / "step-00000006");
  test::run(recipe);
  std::vector<int64_t> steps;
  for (const base::Json& line : test::metrics_of(recipe)) steps.push_back(line.at("step"));
  EXPECT_EQ(steps, (std::vector<int64_t>{1, 2, 3, 4, 5, 6}));
}

// TensorBoard hides what earlier files have from there on: steps that were lost.
TEST_F(Trainers, EventsOfARunThatWentOnTellItsFirstStep) {
  const Recipe recipe = recipe_of("run");
  const auto files_that_start_at = [&](char step) {
    const std::string start = {0x10, step, 0x3a, 2, 8, 1};  // Event.step, Event.session_log {START}
    int found = 0;
    for (const auto& entry : std::filesystem::directory_iterator(recipe.output)) {
      if (entry.path().filename().string().starts_with("events."))
        found += test::content_of(entry.path()).find(start) != std::string::npos;
    }
    return found;
  };
  ASSERT_FALSE(train(recipe, {.stop_after_seconds = 1e-9}).finished);
  EXPECT_EQ(files_that_start_at(1), 0);
  ASSERT_TRUE(test::run(recipe).finished);
  EXPECT_EQ(files_that_start_at(2), 1);
}

TEST_F(Trainers, WhatIsFrozenStaysBitForBit) {
  Recipe recipe = recipe_of("run");
  recipe.trainable = {"cross_attention"};
  recipe.optimiser.rate = 0.1;
  test::run(recipe);
  for (const auto& [name, tensor] : left_by(recipe).tensors) EXPECT_NE(name.find("cross_attn"), std::string::npos);
  const auto start = make_trainee(recipe, 32, {}, at::kCPU);
  const model::Adapter saved = model::load_adapter(base::Path(recipe.output) / "result", start->model.decoder, {});
  EXPECT_TRUE(saved.encoder.layers[0].output.weight.equal(start->model.adapter->encoder.layers[0].output.weight));
  EXPECT_FALSE(saved.cross_attention[0]->query.weight.equal(start->model.adapter->cross_attention[0]->query.weight));
}

// A decoder whose weights are not finite gives losses and gradients that are not either.
class Poisoned : public Trainers {
 protected:
  Poisoned() {
    const model::Decoder decoder = make_trainee(recipe_of("any"), 32, {}, at::kCPU)->model.decoder;
    decoder.norm.weight.detach().fill_(std::numeric_limits<float>::quiet_NaN());
    model::save_decoder(folder / "poisoned", decoder, base::parse_json(test::content_of(config_), "config"));
  }
  // Steps over a sound decoder, then a poisoned one of the same shape: as when numbers overflow on the way.
  Recipe with_decoder(Recipe recipe, const std::string& model) const {
    recipe.decoder.config = "";
    recipe.decoder.model = (folder / model).string();
    return recipe;
  }
};

TEST_F(Poisoned, StepsChangeNoWeightAndTenInARowEndTheRun) {
  Recipe recipe = with_decoder(recipe_of("run"), "poisoned");
  recipe.trainable = {"encoder", "cross_attention"};
  recipe.checkpoint.steps = 4;
  recipe.phases[0].steps = 12;
  expect_error(ErrorCode::internal,
               "10 steps in a row had gradients that are not finite; the last checkpoint is that "
               "of step 8",
               [&] { test::run(recipe); });
  const auto start = make_trainee(recipe, 32, {}, at::kCPU);
  Optimiser untouched(start->parameters, recipe.optimiser, 0);
  const CheckpointState left = left_by(recipe);
  size_t next = 0;
  untouched.visit([&](const std::string& name, at::Tensor& tensor) {
    EXPECT_EQ(left.tensors.at(next).first, name);
    EXPECT_TRUE(left.tensors.at(next++).second.equal(tensor)) << name;
  });
}

TEST_F(Poisoned, ARunWithoutACheckpointSaysSo) {
  Recipe recipe = with_decoder(recipe_of("run"), "poisoned");
  recipe.trainable = {"encoder", "cross_attention"};
  recipe.phases[0].steps = 12;
  expect_error(ErrorCode::internal, "the last checkpoint is none", [&] { test::run(recipe); });
}

// The optimiser's own count of steps (bias correction, noise) is not the run's where some were left out.
TEST_F(Poisoned, StepsThatWereLeftOutAreNotCountedAfterAResumeEither) {
  Recipe recipe = recipe_of("run");
  recipe.checkpoint.steps = 1;
  test::run(recipe);
  EXPECT_EQ(left_by(recipe).state.at("optimiser_steps").get<int64_t>(), 6);
  Recipe poisoned = with_decoder(recipe_of("poisoned-run"), "poisoned");
  poisoned.trainable = {"encoder", "cross_attention"};
  ASSERT_EQ(run_in_pieces(poisoned), 6);
  EXPECT_EQ(left_by(poisoned).state.at("step").get<int64_t>(), 6);
  EXPECT_EQ(left_by(poisoned).state.at("optimiser_steps").get<int64_t>(), 0);
}

TEST_F(Trainers, HowOftenItIsSavedValidatedAndLoggedMayChange) {
  Recipe recipe = recipe_of("run");
  ASSERT_FALSE(train(recipe, {.stop_after_seconds = 1e-9}).finished);
  recipe.checkpoint = {.minutes = 1, .steps = 1, .keep = 1};
  recipe.validation = {.steps = 2, .samples = 1, .decoder_tokens = 8, .context_tokens = {0}};
  recipe.log_steps = 3;
  recipe.peak_tflops = 1;
  EXPECT_TRUE(test::run(recipe).finished);
}

TEST_F(Trainers, AnExportLeavesTheFilesOfARunThatGoesOnAlone) {
  const Recipe recipe = recipe_of("run");
  expect_error(ErrorCode::not_found, "no checkpoint yet", [&] { train(recipe, {.export_only = true}); });
  EXPECT_FALSE(std::filesystem::exists(recipe.output));
  ASSERT_FALSE(train(recipe, {.stop_after_seconds = 1e-9}).finished);
  folder.write("run/checkpoints/step-00000002.partial/tensors.safetensors", "being written");
  const std::string metrics = test::content_of(base::Path(recipe.output) / "metrics.jsonl");
  train(recipe, {.export_only = true});
  EXPECT_TRUE(std::filesystem::exists(folder / "run/checkpoints/step-00000002.partial"));
  EXPECT_TRUE(std::filesystem::exists(folder / "run/result/adapter.safetensors"));
  EXPECT_EQ(test::content_of(base::Path(recipe.output) / "metrics.jsonl"), metrics);
}

// A decoder trained beside the adapter is part of the result: an adapter alone would be of no use.
TEST_F(Trainers, ATrainedDecoderIsSavedBesideItsAdapter) {
  const Recipe recipe = recipe_of("run");
  test::run(recipe);
  const base::Path result = base::Path(recipe.output) / "result";
  const model::Decoder decoder = model::load_decoder(model::open_model(result / "decoder"), {});
  const auto trained = test::trained_by(recipe, 32);
  EXPECT_TRUE(
      decoder.layers[1].feed_forward.down.weight.equal(trained->model.decoder.layers[1].feed_forward.down.weight));
  const model::Adapter adapter = model::load_adapter(result, decoder, {});
  EXPECT_TRUE(
      adapter.cross_attention[1]->output.weight.equal(trained->model.adapter->cross_attention[1]->output.weight));
}

// Of config.json as transformers 4 and 5 write it.
TEST_F(Trainers, StretchedPositionsAreThoseOfTheSavedDecoder) {
  Recipe recipe = recipe_of("run");
  recipe.decoder.rope_factor = 4;
  base::Json config = base::parse_json(test::content_of(config_), "config");
  config["rope_theta"] = 5e5;
  base::Json newer = config;
  newer.erase("rope_theta");
  newer["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 5e5}};
  for (const base::Json& given : {config, newer}) {
    recipe.decoder.config = folder.write("given/config.json", given.dump()).string();
    for (const char* scaling : {"linear", "yarn", "dynamic"}) {
      recipe.decoder.rope_scaling = scaling;
      const auto trainee = make_trainee(recipe, 32, {}, at::kCPU);
      const model::RopeConfig& rope = trainee->model.decoder.config.rope;
      const model::DecoderConfig saved = model::read_decoder_config(trainee->decoder_config, "saved");
      EXPECT_EQ(saved.rope.scaling, rope.scaling) << scaling;
      EXPECT_EQ(saved.rope.factor, 4) << scaling;
      EXPECT_EQ(saved.rope.theta, 5e5) << scaling;
      EXPECT_EQ(saved.rope.original_positions, 512) << scaling;
      EXPECT_EQ(saved.max_positions, 2048) << scaling;
    }
  }
}

}  // namespace
}  // namespace cepe::train
