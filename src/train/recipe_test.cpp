#include "train/recipe.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "expect_error.h"
#include "temporary_folder.h"

namespace cepe::train {
namespace {

Recipe read(const std::string& yaml) {
  return read_recipe("output: out\ndata: {corpus: in}\n" + yaml, "recipe.yaml", {});
}

void refuse(const std::string& says, const std::string& yaml) {
  test::expect_error(base::ErrorCode::invalid_argument, says, [&] { read(yaml); });
}

TEST(Recipes, PrintedAreReadAsTheSame) {
  int found = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator("recipes")) {
    if (entry.path().extension() != ".yaml") continue;
    ++found;
    const Recipe recipe = read_recipe(test::content_of(entry.path()), entry.path().string(), {});
    const std::string printed = print_recipe(recipe, false);
    EXPECT_EQ(print_recipe(read_recipe(printed, "printed", {}), false), printed) << entry.path();
    EXPECT_EQ(print_recipe(read_recipe(print_recipe(recipe, true), "explained", {}), false), printed) << entry.path();
  }
  EXPECT_GE(found, 10);
}

TEST(Recipes, StepsAreThoseOfAllPhases) {
  EXPECT_EQ(read("phases: [{steps: 5, windows: 1}, {steps: 7, windows: 1}]").steps(), 12);
}

TEST(Recipes, AnUnknownFieldIsNamedWithTheNearestKnownOne) {
  refuse("recipe.yaml, line 3: 'phases.0.context_token' is no field; did you mean 'context_tokens'?",
         "phases: [{steps: 5, context_token: 4}]");
}

TEST(Recipes, WhatIsMissingIsAskedFor) {
  refuse("phases", "stage: cepe");
  test::expect_error(base::ErrorCode::invalid_argument, "data.corpus",
                     [] { read_recipe("output: out\nphases: [{steps: 1}]", "recipe.yaml", {}); });
  test::expect_error(base::ErrorCode::invalid_argument, "output",
                     [] { read_recipe("data: {corpus: in}\nphases: [{steps: 1}]", "recipe.yaml", {}); });
  refuse("trainable", "trainable: []\nphases: [{steps: 1}]");
  refuse("loss.divergence", "stage: ceped\nphases: [{steps: 1}]");
}

TEST(Recipes, PartsOfABatchAreEqual) {
  refuse("batch 6 is no multiple of micro_batch 4", "phases: [{steps: 1, batch: 6, micro_batch: 4}]");
}

TEST(Recipes, EncodedTextComesInWholeChunks) {
  const std::string chunks = "adapter: {chunk_size: 32}\n";
  refuse("context_tokens 40 is no multiple of adapter.chunk_size 32",
         chunks + "phases: [{steps: 1, context_tokens: 40, windows: 1}]");
  refuse("decoder_tokens 40 is no multiple of adapter.chunk_size 32, as more windows",
         chunks + "phases: [{steps: 1, decoder_tokens: 40}]");
  refuse("as stage warmup needs", chunks + "stage: warmup\nphases: [{steps: 1, decoder_tokens: 40, windows: 1}]");
  refuse("validation.context_tokens 48 is no multiple of adapter.chunk_size 32",
         chunks + "phases: [{steps: 1}]\nvalidation: {steps: 5, context_tokens: [0, 48]}");
  const std::string warm_up = chunks + "stage: warmup\nphases: [{steps: 1, decoder_tokens: 64, windows: 1}]\n";
  refuse("validation.decoder_tokens 48 is no multiple of adapter.chunk_size 32, as stage warmup needs",
         warm_up + "validation: {steps: 5, decoder_tokens: 48}");
  EXPECT_EQ(read(warm_up + "validation: {steps: 5}").validation.decoder_tokens, 0);
  EXPECT_EQ(read(chunks + "phases: [{steps: 1, decoder_tokens: 40, windows: 1}]").phases[0].decoder_tokens, 40);
}

TEST(Recipes, OthersNeedAnotherSampleAndNoMoreThanItHas) {
  const std::string phase = "phases: [{steps: 1, decoder_tokens: 256, windows: 2, others: 0.5, ";
  refuse("go together", phase + "batch: 2}]");
  refuse("has no other sample", phase + "batch: 2, micro_batch: 1, other_tokens: 256}]");
  refuse("other_tokens 768: a sample has only 512", phase + "batch: 2, other_tokens: 768}]");
}

// The teacher is the decoder as it is: trained, it would follow its student.
TEST(Recipes, ATeacherThatIsTrainedIsRefused) {
  const std::string ceped = "stage: ceped\nloss: {divergence: 1, mode: drop}\nphases: [{steps: 1, windows: 1}]\n";
  refuse("trainable: 'decoder' is part of stage ceped's teacher", ceped + "trainable: [encoder, decoder]");
  refuse("trainable: 'low_rank' is part of stage ceped's teacher", ceped + "trainable: [low_rank]");
  const std::vector<std::string> stored = {"data.stored_logits=logits"};
  EXPECT_EQ(read_recipe("output: out\ntrainable: [decoder]\n" + ceped, "recipe.yaml", stored).trainable.size(), 1);
}

// What a stage would pass over silently, or could not do.
TEST(Recipes, FieldsThatAStageHasNotAreRefused) {
  refuse("windows: stage mlm has 1", "stage: mlm\nphases: [{steps: 1}]");
  refuse("windows: stage warmup has 1", "stage: warmup\nphases: [{steps: 1}]");
  refuse("stage warmup has no text before", "stage: warmup\nphases: [{steps: 1, windows: 1, context_tokens: 256}]");
  refuse("stage decoder has no text before", "stage: decoder\nphases: [{steps: 1, context_tokens: 256}]");
  refuse("stage decoder has no context", "stage: decoder\nphases: [{steps: 1, no_context: 0.5}]");
  refuse("mask: only for contexts of one window", "phases: [{steps: 1, mask: 0.3}]");
  refuse("mask: only for contexts of one window",
         "phases: [{steps: 1, mask: 0.3, windows: 1, context_tokens: 512, short_context: 0.2}]");
  EXPECT_EQ(read("phases: [{steps: 1, mask: 0.3, windows: 1, context_tokens: 512}]").phases[0].mask, 0.3);
  refuse("loss.divergence: stage cepe has no teacher", "phases: [{steps: 1}]\nloss: {divergence: 1}");
}

TEST(Recipes, FieldsThatDoNothingAreRefused) {
  const std::string phase = "phases: [{steps: 1}]\n";
  refuse("decoder.rope_factor: does nothing without decoder.rope_scaling", phase + "decoder: {rope_factor: 4}");
  refuse("decoder.low_rank.rank: does nothing unless low_rank is in trainable",
         phase + "decoder: {low_rank: {rank: 8}}");
  refuse("are for adapter.encoder random; it is 'decoder'", phase + "adapter: {encoder_width: 64}");
  EXPECT_EQ(read(phase + "adapter: {encoder: random, encoder_width: 64}").adapter.encoder_width, 64);
  refuse("validation.decoder_tokens", phase + "validation: {steps: 1, decoder_tokens: 1}");
}

TEST(Recipes, FieldsOfANewAdapterAreRefusedWhereOneIsThere) {
  const std::string phase = "phases: [{steps: 1}]\n";
  for (const char* field : {"encoder: random", "encoder_layers: 2", "encoder_width: 64", "encoder_heads: 2",
                            "encoder_feed_forward: 64", "cross_attention_layers: 8-29", "start: copy"}) {
    const std::string name = field;
    refuse("adapter." + name.substr(0, name.find(':')) + ": is of a new adapter, and adapter.from names one",
           phase + "adapter: {from: warm, " + field + "}");
  }
  EXPECT_EQ(read(phase + "adapter: {from: warm, encoder_layers: 6, chunk_size: 64}").adapter.chunk_size, 64);
  const std::string remedy = "adapter={from: warm, chunk_size: 64}";
  refuse("'" + remedy + "'", phase + "adapter: {from: warm, encoder_layers: 2, chunk_size: 64}");
  const std::string yaml = "output: out\ndata: {corpus: in}\nadapter: {from: cold, start: copy}\n" + phase;
  const std::vector<std::string> given = {remedy};
  EXPECT_EQ(read_recipe(yaml, "recipe.yaml", given).adapter.from, "warm");
  refuse("adapter.from: stage decoder has no adapter",
         "stage: decoder\ntrainable: [decoder]\nadapter: {from: warm}\nphases: [{steps: 1, windows: 1}]");
}

TEST(Recipes, WhatIsOfACorpusAloneIsRefusedBesidePreparedSamples) {
  const auto prepared = [](const std::string& data, const std::string& more) {
    return read_recipe(
        "output: out\ndata: {samples: mds, corpus: in, " + data + "}\nphases: [{steps: 1, windows: 1}]\n" + more,
        "recipe.yaml", {});
  };
  for (const std::string field : {"mixture: [{domain: a}]", "held_out: 0.1"}) {
    test::expect_error(base::ErrorCode::invalid_argument,
                       "data." + field.substr(0, field.find(':')) + ": is of data.corpus",
                       [&] { prepared(field, ""); });
    EXPECT_EQ(prepared(field, "validation: {steps: 5}").validation.steps, 5);
  }
}

TEST(Recipes, AnUnknownDivergenceIsRefusedBeforeARunBegins) {
  const std::string distilled = "stage: ceped\nphases: [{steps: 1}]\nloss: {divergence: 1, mode: ";
  for (const char* mode : {"smooth", "smooth_nan", "smooth_1e-6x", "FULL"})
    refuse(std::string("loss.mode '") + mode + "': known are full, drop and smooth_X", distilled + mode + "}");
  for (const char* mode : {"full", "drop", "smooth_1e-6"}) EXPECT_EQ(read(distilled + mode + "}").loss.mode, mode);
}

// A folder of that name would be made where the program runs.
TEST(Recipes, PathsThatOnlyAShellCompletesAreRefused) {
  refuse("adapter.from '~/runs/warm': ~ is not read as the home folder here",
         "adapter: {from: ~/runs/warm}\nphases: [{steps: 1}]");
  test::expect_error(base::ErrorCode::invalid_argument, "output '~/out'",
                     [] { read_recipe("output: ~/out\ndata: {corpus: in}\nphases: [{steps: 1}]", "recipe.yaml", {}); });
}

TEST(Recipes, ALossThatWeighsNothingIsRefused) {
  refuse("loss.mask: stage mlm needs it above 0", "stage: mlm\nphases: [{steps: 1, windows: 1}]\nloss: {mask: 0}");
  refuse("loss.cross_entropy: stage cepe needs it above 0", "phases: [{steps: 1}]\nloss: {cross_entropy: 0}");
  const std::string distilled = "stage: ceped\nphases: [{steps: 1}]\nloss: {cross_entropy: 0, divergence: 1}";
  EXPECT_EQ(read(distilled).loss.cross_entropy, 0);
}

TEST(Recipes, OptimisersThatDivideByZeroAreRefused) {
  const std::string phase = "phases: [{steps: 1}]\n";
  refuse("optimiser.beta1: must be below 1", phase + "optimiser: {beta1: 1}");
  refuse("optimiser.beta2: must be below 1", phase + "optimiser: {beta2: 1}");
  refuse("optimiser.eps", phase + "optimiser: {eps: 0}");
}

}  // namespace
}  // namespace cepe::train
