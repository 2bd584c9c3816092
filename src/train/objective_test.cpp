// What a loss depends on: each window's own text up to a token, the chunks it is given, and nothing else.
#include "train/objective.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "golden_tensors.h"
#include "train/validation.h"
#include "training_runs.h"

namespace cepe::train {
namespace {

class Objectives : public test::TrainingRuns {
 protected:
  std::unique_ptr<Trainee> trainee(const Recipe& recipe) const { return make_trainee(recipe, 32, {}, at::kCPU); }

  // Four samples of the recipe's first phase: 8 tokens of context, two windows of 8.
  Batch batch_of(const Recipe& recipe, int64_t count = 4) const {
    const PhaseSettings& phase = recipe.phases[0];
    const data::Sampler sampler(corpus_, {.tokens = sample_tokens(phase)});
    return make_batch(sampler, {.stage = stage_of(recipe.stage), .phase = phase, .chunk_size = 8}, 0, count, at::kCPU);
  }

  static at::Tensor hidden(const Trainee& trainee, const Batch& batch) {
    const at::NoGradGuard none;
    const at::Tensor rows = window_hidden(trainee, batch, false);
    return rows.reshape({batch.windows, batch.tokens.size(0), batch.decoder_tokens, -1});
  }

  // The same batch with another token at a place of a sample.
  static Batch changed(const Batch& batch, int64_t sample, int64_t place) {
    Batch other = batch;
    other.tokens = batch.tokens.clone();
    other.tokens[sample][place] += other.tokens[sample][place].item<int64_t>() < 31 ? 1 : -1;
    return other;
  }

  data::TokenCorpus corpus_ = data::TokenCorpus::open(folder / "corpus");
};

// Rows of [W, B, T] that differ.
at::Tensor differing(const at::Tensor& a, const at::Tensor& b) { return (a != b).any(-1); }

TEST_F(Objectives, ATokenIsFeltByItsWindowFromItOnAndByLaterWindowsWholly) {
  const auto model = trainee(recipe_of("run"));
  const Batch batch = batch_of(recipe_of("run"));
  const at::Tensor before = hidden(*model, batch);
  for (int64_t place = 0; place < 24; ++place) {
    const at::Tensor found = differing(hidden(*model, changed(batch, 2, place)), before);
    at::Tensor wanted = at::zeros({2, 4, 8}, at::kBool);
    for (int64_t w = 0; w < 2; ++w) {
      const int64_t first = 8 + 8 * w;
      if (place < first) wanted[w][2].fill_(true);
      if (place >= first && place < first + 8) wanted[w][2].narrow(0, place - first, 8 - (place - first)).fill_(true);
    }
    EXPECT_TRUE(found.equal(wanted)) << place << "\n" << found;
  }
}

TEST_F(Objectives, OthersAreTheNextSamplesTextAndNeverAWindowsOwn) {
  const auto model = trainee(recipe_of("run"));
  Batch batch = batch_of(recipe_of("run"));
  batch.slices = {{0, 0, 8}, {0, 0, 8}};
  const at::Tensor before = hidden(*model, batch);
  for (int64_t sample = 0; sample < 4; ++sample) {
    const at::Tensor found = differing(hidden(*model, changed(batch, sample, 3)), before).all(-1);  // [W, B]
    for (int64_t b = 0; b < 4; ++b) EXPECT_EQ(found[0][b].item<bool>(), b == (sample + 3) % 4) << sample << " " << b;
  }
}

TEST_F(Objectives, CrossEntropyIsTheMeanOverTheTokensThatFollow) {
  const auto model = trainee(recipe_of("run"));
  const Batch batch = batch_of(recipe_of("run"));
  const Loss loss = objective(*model, batch, recipe_of("run"));
  const at::NoGradGuard none;
  const at::Tensor logits = model::logits(model->model.decoder, window_hidden(*model, batch, false)).to(at::kDouble);
  // Written out: window by window, each token's logits against the one that follows in the sample.
  double sum = 0;
  int count = 0;
  for (int64_t w = 0; w < 2; ++w) {
    for (int64_t b = 0; b < 4; ++b) {
      for (int64_t t = 0; t < 8 - (w == 1); ++t, ++count) {
        const int64_t next = batch.tokens[b][8 + 8 * w + t + 1].item<int64_t>();
        sum -= logits[(w * 4 + b) * 8 + t].log_softmax(0)[next].item<double>();
      }
    }
  }
  EXPECT_EQ(count, batch.predicted());
  EXPECT_NEAR(loss.cross_entropy.item<double>(), sum / count, 1e-5);
  EXPECT_NEAR(loss.total.item<double>(), sum / count, 1e-5);
}

// Without a context nothing of an adapter takes part.
TEST_F(Objectives, WithoutContextThereIsNoGradientForAnAdapter) {
  Recipe recipe = recipe_of("run");
  recipe.trainable = {"encoder", "cross_attention"};
  const auto model = trainee(recipe);
  Batch batch = batch_of(recipe);
  EXPECT_TRUE(objective(*model, batch, recipe).total.requires_grad());
  batch.slices.assign(2, {});
  EXPECT_FALSE(objective(*model, batch, recipe).total.requires_grad());
}

TEST_F(Objectives, TheTeacherReadsContextAndTextDirectlyAndLearnsNothing) {
  Recipe recipe = recipe_of("run");
  recipe.stage = "ceped";
  recipe.loss.divergence = 2;
  recipe.trainable = {"encoder", "cross_attention"};
  const auto model = trainee(recipe);
  const Batch batch = batch_of(recipe);
  const at::NoGradGuard none;
  const at::Tensor teacher = teacher_hidden(*model, batch);
  EXPECT_FALSE(teacher.requires_grad());
  // The decoder over a sample of 24 tokens; window w's rows are those of its place.
  const at::Tensor direct =
      forward(model->model.decoder, model::uniform_layout(batch.tokens.narrow(0, 1, 1)), nullptr);  // [24, C]
  for (int64_t w = 0; w < 2; ++w) {
    EXPECT_LE(test::distance(teacher.narrow(0, (w * 4 + 1) * 8, 8), direct.narrow(0, 8 + 8 * w, 8)), 1e-5) << w;
  }
}

TEST_F(Objectives, TotalWeighsCrossEntropyAndDivergence) {
  for (const char* mode : {"full", "smooth_1e-6", "drop"}) {
    Recipe recipe = recipe_of("run");
    recipe.stage = "ceped";
    recipe.loss = {.cross_entropy = 0.5, .divergence = 3, .mode = mode, .top = 5};
    const auto model = trainee(recipe);
    const Loss loss = objective(*model, batch_of(recipe), recipe);
    EXPECT_GT(loss.divergence.item<double>(), 0) << mode;
    EXPECT_NEAR(loss.total.item<double>(), 0.5 * loss.cross_entropy.item<double>() + 3 * loss.divergence.item<double>(),
                1e-4)
        << mode;
  }
}

TEST_F(Objectives, BothTermsAreOfTheLogitsThatTheDecoderGives) {
  Recipe recipe = recipe_of("run");
  const auto model = trainee(recipe);
  model->model.decoder.config.logit_cap = 0.05;
  Batch batch = batch_of(recipe);
  const auto gradient = [&](const Loss& loss) {
    return torch::autograd::grad({loss.total}, {model->model.decoder.layers[1].feed_forward.down.weight})[0];
  };
  const Loss plain = objective(*model, batch, recipe);
  const at::Tensor wanted = gradient(plain);
  recipe.stage = "ceped";
  const Loss distilled = objective(*model, batch, recipe);
  EXPECT_NEAR(distilled.cross_entropy.item<double>(), plain.cross_entropy.item<double>(), 1e-5);
  EXPECT_LE(test::distance(gradient(distilled), wanted), 1e-4);
  // Who reads the same as the teacher says the same.
  recipe.phases = {{.steps = 1, .batch = 4, .decoder_tokens = 8, .windows = 1}};
  for (const char* mode : {"full", "drop"}) {
    recipe.loss.mode = mode;
    EXPECT_NEAR(objective(*model, batch_of(recipe), recipe).divergence.item<double>(), 0, 1e-6) << mode;
  }
}

TEST_F(Objectives, EachMaskedTokenOfHeldOutTextCountsTheSame) {
  Recipe recipe = recipe_of("run");
  recipe.stage = "mlm";
  recipe.trainable = {"encoder"};
  recipe.validation = {.samples = 4, .decoder_tokens = 8};
  const auto model = trainee(recipe);
  const data::Sampler sampler(corpus_, {.tokens = 8});
  const BatchRequest all = {
      .stage = Stage::mlm, .phase = {.decoder_tokens = 8, .windows = 1}, .mask = recipe.loss.mask, .mask_token = 32};
  const at::NoGradGuard none;
  const Batch batch = make_batch(sampler, all, 0, 4, at::kCPU);
  EXPECT_NEAR(validate_on(*model, sampler, recipe, 32, at::kCPU).at(0).nll,
              objective(*model, batch, recipe).cross_entropy.item<double>(), 1e-5);
}

// Chunks that are wholly masked are not there; a mask of ones changes nothing.
TEST_F(Objectives, MaskedContextIsLeftOut) {
  Recipe recipe = recipe_of("run");
  recipe.phases = {{.steps = 1, .batch = 4, .context_tokens = 16, .decoder_tokens = 8, .windows = 1}};
  const auto model = trainee(recipe);
  Batch batch = batch_of(recipe);
  const at::Tensor all = hidden(*model, batch);
  batch.context_mask = at::ones({4, 2, 8}, at::kByte);
  EXPECT_LE(test::distance(hidden(*model, batch), all), 1e-5);
  batch.context_mask[1][0].zero_();
  const at::Tensor masked = hidden(*model, batch);
  EXPECT_LE(test::distance(masked[0][0], all[0][0]), 1e-5);
  EXPECT_GT(test::distance(masked[0][1], all[0][1]), 1e-3);
  EXPECT_TRUE(hidden(*model, changed(batch, 1, 3))[0][1].equal(masked[0][1]));
}

}  // namespace
}  // namespace cepe::train
