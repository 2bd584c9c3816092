// The method learns what it is for: a window whose next token nothing but its context tells.
//
// A sample is 32 different tokens in random order, two chunks of 16, and then a window that repeats one of the chunks.
// The decoder sees each token once, so that the one that follows can only be read off the encoder's states: the chunk
// that holds the token, and its neighbour there. Decoder, encoder and cross-attention start from random weights.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <numeric>

#include "model/decoder.h"
#include "train/batch.h"
#include "train/objective.h"
#include "training_runs.h"

namespace cepe::train {
namespace {

constexpr int64_t task_vocabulary = 32, task_chunk = 16, task_chunks = 2;

std::vector<test::Ids> copies(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<test::Ids> documents;
  for (size_t d = 0; d < count; ++d) {
    test::Ids ids(task_vocabulary);
    std::iota(ids.begin(), ids.end(), 0);
    for (size_t i = ids.size() - 1; i > 0; --i) std::swap(ids[i], ids[random() % (i + 1)]);
    const auto repeated = static_cast<std::ptrdiff_t>(random() % task_chunks * task_chunk);
    const test::Ids window(ids.begin() + repeated, ids.begin() + repeated + task_chunk);
    ids.insert(ids.end(), window.begin(), window.end());
    documents.push_back(std::move(ids));
  }
  return documents;
}

// Share of the tokens of held-out windows that the model gives the most probability.
double accuracy(const Trainee& trainee, const Batch& batch) {
  const at::NoGradGuard none;
  const at::Tensor best = logits(trainee.model.decoder, window_hidden(trainee, batch, false)).argmax(1);
  const at::Tensor next = batch.next_tokens().reshape({-1});
  return static_cast<double>((best == next).sum().item<int64_t>()) / static_cast<double>(batch.predicted());
}

Recipe recipe_for(const test::TemporaryFolder& folder) {
  constexpr int64_t width = 64, heads = 2;
  Recipe recipe;
  recipe.output = (folder / "run").string();
  recipe.seed = 1;
  recipe.trainable = {"decoder", "encoder", "cross_attention"};
  recipe.decoder.config = test::write_decoder_config(folder, {.vocabulary = task_vocabulary,
                                                              .width = width,
                                                              .layers = 1,
                                                              .heads = heads,
                                                              .groups = heads,
                                                              .feed_forward = 2 * width});
  recipe.adapter.encoder = "random";
  recipe.adapter.encoder_layers = 1;
  recipe.adapter.encoder_width = width;
  recipe.adapter.encoder_heads = heads;
  recipe.adapter.encoder_feed_forward = 2 * width;
  recipe.adapter.start = "scaled";
  recipe.adapter.chunk_size = task_chunk;
  recipe.data.corpus = (folder / "corpus").string();
  recipe.data.held_out = 0.02;
  recipe.phases = {{.steps = 400,
                    .batch = 32,
                    .context_tokens = task_chunks * task_chunk,
                    .decoder_tokens = task_chunk,
                    .windows = 1}};
  recipe.optimiser.kind = "muon";
  recipe.optimiser.rate = 1e-2;
  recipe.optimiser.vector_rate = 0.5;
  recipe.optimiser.beta2 = 0.95;
  recipe.schedule = {.kind = "linear", .warm_up = 0.02, .decay_from = 0.5};
  recipe.checkpoint.minutes = 0;
  recipe.log_steps = 100;
  return recipe;
}

// With these settings each of the seeds 1 to 7 comes above 0.999, after about 300 steps at most.
TEST(CopyTask, IsSolvedWithTheRightContextAndLeftToChanceWithoutIt) {
  const test::TemporaryFolder folder;
  const data::TokenCorpus corpus = test::write_corpus(folder / "corpus", task_vocabulary, copies(20000, 7));
  const Recipe recipe = recipe_for(folder);
  ASSERT_TRUE(test::run(recipe).finished);

  const auto trainee = test::trained_by(recipe, task_vocabulary);
  const data::Sampler held_out(corpus, {.tokens = sample_tokens(recipe.phases[0]), .held_out = recipe.data.held_out},
                               data::Split::held_out);
  Batch batch = make_batch(held_out, {.phase = recipe.phases[0], .chunk_size = task_chunk}, 0, 128, at::kCPU);
  const double with = accuracy(*trainee, batch);
  batch.slices = {{0, 0, 0}};
  const double without = accuracy(*trainee, batch);
  batch.slices = {{0, 0, task_chunks * task_chunk}};
  const double other = accuracy(*trainee, batch);
  std::cout << "next-token accuracy with the context " << with << ", without " << without << ", with another's "
            << other << "\n";
  EXPECT_GT(with, 0.95);
  // Of 32 tokens those already seen do not come again: 1/32 to 1/17, 1/24 in the mean.
  EXPECT_LT(without, 0.1);
  EXPECT_LT(other, 0.1);
}

}  // namespace
}  // namespace cepe::train
