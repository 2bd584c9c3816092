// Training on samples prepared beforehand: stored logits give what the teacher itself gives, retrieved chunks are what
// is attended to, and a run goes on with the sample at which it stopped.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/topk.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <random>

#include "data/prepared_samples.h"
#include "distance.h"
#include "expect_error.h"
#include "model/losses.h"
#include "sample_folder.h"
#include "temporary_folder.h"
#include "tiny_models.h"
#include "train/batch_source.h"
#include "train/checkpoint.h"
#include "train/objective.h"
#include "train/trainer.h"

namespace cepe::train {
namespace {

using base::ErrorCode;
using test::Columns;
using test::distance;
using test::expect_error;
using test::pickled_ids;

constexpr int64_t context = 16, window = 11, chunk = 8, vocabulary = 96;
constexpr int samples = 3;

std::vector<int32_t> random_ids(uint32_t seed, int64_t count, uint32_t below = vocabulary) {
  std::mt19937 random(seed);
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % below);
  return ids;
}

Columns texts(uint32_t below = vocabulary, int64_t before = context, int64_t length = window,
              uint32_t count = samples) {
  Columns columns;
  for (uint32_t i = 0; i < count; ++i) {
    columns["prev_token_ids"].push_back(pickled_ids(random_ids(2 * i, before, below)));
    columns["token_ids"].push_back(pickled_ids(random_ids(2 * i + 1, length, below)));
  }
  return columns;
}

Recipe recipe_of(const std::string& stage, int64_t context_tokens = context) {
  Recipe recipe;
  recipe.stage = stage;
  recipe.adapter.chunk_size = chunk;
  PhaseSettings phase;
  phase.steps = 1, phase.batch = samples, phase.context_tokens = context_tokens, phase.decoder_tokens = window;
  phase.windows = 1;
  recipe.phases = {phase};
  if (stage == "ceped") recipe.loss.divergence = 2;
  return recipe;
}

Batch batch_of(const Recipe& recipe, const Trainee& trainee) {
  const BatchRequest request = {.stage = stage_of(recipe.stage), .phase = recipe.phases[0], .chunk_size = chunk};
  return batch_sources(recipe, std::nullopt, trainee)[0](request, 0, samples, at::kCPU);
}

struct LossAndGradients {
  Loss loss;
  std::vector<at::Tensor> gradients;
};

LossAndGradients run(Trainee& trainee, const Batch& batch, const Recipe& recipe) {
  std::vector<at::Tensor> leaves;
  visit_parameters(*trainee.model.adapter, [&](at::Tensor& leaf) { leaves.push_back(leaf.requires_grad_()); });
  LossAndGradients result = {objective(trainee, batch, recipe), {}};
  torch::autograd::backward({result.loss.total}, {});
  for (at::Tensor& leaf : leaves) {
    if (leaf.grad().defined()) result.gradients.push_back(leaf.grad().clone());
    leaf.mutable_grad().reset();
  }
  return result;
}

double loss_of(const Trainee& trainee, const Recipe& recipe) {
  const at::NoGradGuard none;
  return objective(trainee, batch_of(recipe, trainee), recipe).total.item<double>();
}

class StoredLogits : public testing::Test {
 protected:
  StoredLogits() { trainee_.model = test::tiny_model(7); }

  // What the frozen decoder says of each sample's window, as the published preparation stores it but in float32.
  base::Path store(const std::string& name, int64_t top) const {
    const at::NoGradGuard none;
    Columns columns = texts();
    for (uint32_t i = 0; i < samples; ++i) {
      std::vector<int32_t> ids = random_ids(2 * i, context);
      const std::vector<int32_t> last = random_ids(2 * i + 1, window);
      ids.insert(ids.end(), last.begin(), last.end());
      const at::Tensor tokens = at::tensor(at::ArrayRef<int32_t>(ids)).to(at::kLong).reshape({1, -1});
      const model::Decoder& decoder = trainee_.model.decoder;
      const at::Tensor hidden = forward(decoder, model::uniform_layout(tokens), nullptr);
      const auto [best, indices] =
          at::topk(at::softmax(logits(decoder, hidden.narrow(0, context, window)), -1), top, -1);
      const at::Tensor all = at::cat({best, 1 - best.sum(-1, true)}, -1).contiguous();
      const at::Tensor narrow = indices.to(at::kInt).contiguous();
      columns["target_prob"].push_back(test::pickled_floats(
          {all.const_data_ptr<float>(), all.const_data_ptr<float>() + all.numel()}, {window, top + 1}));
      columns["target_index"].push_back(pickled_ids(
          {narrow.const_data_ptr<int32_t>(), narrow.const_data_ptr<int32_t>() + narrow.numel()}, {window, top}));
    }
    return test::write_sample_folder(folder_ / name, columns);
  }

  test::TemporaryFolder folder_;
  Trainee trainee_;
};

TEST_F(StoredLogits, OfTheDecoderItselfGiveTheLossAndTheGradientsOfTheOnlineTeacher) {
  for (const int64_t top : {50, 3}) {
    Recipe recipe = recipe_of("ceped");
    recipe.data.stored_logits = store(std::to_string(top), top);
    recipe.loss.top = top;
    const Batch stored = batch_of(recipe, trainee_);
    Batch online = stored;
    online.teacher_probabilities = online.teacher_indices = at::Tensor();
    for (const std::string mode : {"smooth_1e-6", "smooth_0.1", "drop"}) {
      for (const int64_t rows_per_chunk : {0, 7}) {
        recipe.loss.mode = mode;
        recipe.loss.rows_per_chunk = rows_per_chunk;
        const LossAndGradients found = run(trainee_, stored, recipe), wanted = run(trainee_, online, recipe);
        EXPECT_LE(distance(found.loss.divergence, wanted.loss.divergence), 1e-5) << mode;
        EXPECT_LE(distance(found.loss.total, wanted.loss.total), 1e-5) << mode;
        ASSERT_EQ(found.gradients.size(), wanted.gradients.size());
        ASSERT_GT(found.gradients.size(), 5U);
        for (size_t i = 0; i < found.gradients.size(); ++i)
          EXPECT_LE(distance(found.gradients[i], wanted.gradients[i]), 3e-5) << mode << " " << i;
      }
    }
  }
}

TEST_F(StoredLogits, AreComparedAsThePublishedLossComparesThem) {
  Recipe recipe = recipe_of("ceped");
  recipe.data.stored_logits = store("m", 50);
  recipe.loss.mode = "smooth_1e-6";
  const Batch batch = batch_of(recipe, trainee_);
  const Loss loss = objective(trainee_, batch, recipe);
  const at::NoGradGuard none;
  const at::Tensor student =
      logits(trainee_.model.decoder, window_hidden(trainee_, batch, false)).reshape({samples, window, vocabulary});
  const at::Tensor expected =
      model::distillation_loss(student, batch.teacher_probabilities, batch.teacher_indices, {.smoothing = 1e-6});
  EXPECT_EQ(batch.teacher_indices.sizes(), at::IntArrayRef({samples, window / 2, 50}));
  EXPECT_LE(distance(loss.divergence, expected), 1e-5);
}

TEST_F(StoredLogits, StandInForTheTeacher) {
  Recipe recipe = recipe_of("ceped");
  recipe.loss.mode = "drop";
  recipe.data.stored_logits = store("m", 50);
  Batch batch = batch_of(recipe, trainee_);
  const at::Tensor before = objective(trainee_, batch, recipe).divergence;
  batch.teacher_probabilities = batch.teacher_probabilities * 0;
  EXPECT_GT(before.item<double>(), 0);
  EXPECT_EQ(objective(trainee_, batch, recipe).divergence.item<double>(), 0);
}

class RetrievedChunks : public testing::Test {
 protected:
  RetrievedChunks() { trainee_.model = test::tiny_model(9); }

  // The loss where each sample has these chunks; two of them fit.
  double loss(const std::vector<std::vector<int32_t>>& chunks, const std::vector<float>& scores = {}) {
    Columns columns = texts();
    std::vector<int32_t> all;
    for (const auto& ids : chunks) all.insert(all.end(), ids.begin(), ids.end());
    const auto count = static_cast<int64_t>(chunks.size());
    for (int i = 0; i < samples; ++i) {
      columns["retrieved_token_ids"].push_back(pickled_ids(all, {count, chunk}));
      if (!scores.empty()) columns["retrieval_scores"].push_back(test::pickled_floats(scores, {count}));
    }
    Recipe recipe = recipe_of("cepe");
    recipe.data.retrieved = test::write_sample_folder(folder_ / std::to_string(folders_++), columns);
    return loss_of(trainee_, recipe);
  }

  test::TemporaryFolder folder_;
  Trainee trainee_;
  int folders_ = 0;
};

TEST_F(RetrievedChunks, AreWhatIsAttendedTo) {
  const std::vector<int32_t> a = random_ids(11, chunk), b = random_ids(12, chunk), c = random_ids(13, chunk);
  const double both = loss({a, b});
  EXPECT_NEAR(loss({b, a}), both, 1e-5 * both);
  EXPECT_GT(std::abs(loss({a, c}) - both), 1e-3);
  EXPECT_GT(std::abs(loss({c, b}) - both), 1e-3);
  std::vector<int32_t> turned = a;
  std::reverse(turned.begin(), turned.end());
  EXPECT_GT(std::abs(loss({turned, b}) - both), 1e-4);
  // Of more than fit, the best.
  EXPECT_DOUBLE_EQ(loss({a, b, c}), both);
  EXPECT_NEAR(loss({a, c, b}, {3, 1, 2}), both, 1e-5 * both);
  EXPECT_GT(std::abs(loss({a, c, b}) - both), 1e-3);
}

TEST_F(RetrievedChunks, EachStandForItself) {
  // The boundary between two chunks is one: the same tokens as one text of 16 are read otherwise.
  const std::vector<int32_t> ids = random_ids(21, 2 * chunk);
  const double apart = loss({{ids.begin(), ids.begin() + chunk}, {ids.begin() + chunk, ids.end()}});
  Columns columns = texts();
  for (int i = 0; i < samples; ++i) {
    columns["retrieved_token_ids"].push_back(pickled_ids({ids.begin(), ids.begin() + chunk}, {1, chunk}));
    columns["retrieved_neighbor_token_ids"].push_back(pickled_ids({ids.begin() + chunk, ids.end()}, {1, chunk}));
  }
  Recipe recipe = recipe_of("cepe");
  recipe.data.retrieved = test::write_sample_folder(folder_ / "neighbours", columns);
  recipe.data.neighbours = "separate";
  EXPECT_NEAR(loss_of(trainee_, recipe), apart, 1e-5 * apart);
}

// The whole loop.
class PreparedRuns : public testing::Test {
 protected:
  static constexpr int64_t top = 4;

  PreparedRuns() {
    Columns columns = texts(64, 32, 16, 10);
    for (uint32_t i = 0; i < 10; ++i) {
      std::vector<float> probabilities;
      for (int row = 0; row < 8; ++row) probabilities.insert(probabilities.end(), {0.4F, 0.2F, 0.1F, 0.1F, 0.2F});
      columns["target_prob"].push_back(test::pickled_floats(probabilities, {8, top + 1}));
      columns["target_index"].push_back(pickled_ids(random_ids(50 + i, 8 * top, 64), {8, top}));
      columns["retrieved_token_ids"].push_back(pickled_ids(random_ids(70 + i, 3 * chunk, 64), {3, chunk}));
    }
    test::write_sample_folder(folder_ / "samples", columns, {.zstd = true, .shard_bytes = 4000});
    folder_.write("config.json", R"({
 "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 64,
 "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "hidden_act": "silu",
 "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "max_position_embeddings": 512, "tie_word_embeddings": true,
 "torch_dtype": "float32", "vocab_size": 64})");
  }

  Recipe recipe(const std::string& stage, const std::string& output) const {
    Recipe recipe = recipe_of(stage);
    recipe.output = folder_ / output;
    recipe.decoder.config = folder_ / "config.json";
    recipe.adapter.encoder_layers = 1;
    (stage == "ceped" ? recipe.data.stored_logits : recipe.data.retrieved) = folder_ / "samples";
    PhaseSettings& phase = recipe.phases[0];
    phase.steps = 4, phase.batch = 4, phase.micro_batch = 2, phase.decoder_tokens = 16;
    recipe.loss.mode = "smooth_1e-6";
    recipe.loss.top = top;
    return recipe;
  }

  CheckpointState newest(const Recipe& recipe) const {
    return CheckpointFolder(base::Path(recipe.output) / "checkpoints", 1).load_newest()->second;
  }

  test::TemporaryFolder folder_;
};

TEST_F(PreparedRuns, StoppedAfterEachStepLearnWhatARunInOneGoLearns) {
  for (const std::string stage : {"cepe", "ceped"}) {
    const Recipe whole = recipe(stage, stage + "-whole"), pieces = recipe(stage, stage + "-pieces");
    EXPECT_TRUE(train::train(whole, {}).finished);
    TrainOptions step;
    step.stop_after_seconds = 1e-9;
    int parts = 1;
    while (!train::train(pieces, step).finished) ++parts;
    EXPECT_EQ(parts, 4);
    const CheckpointState a = newest(whole), b = newest(pieces);
    ASSERT_EQ(a.tensors.size(), b.tensors.size());
    for (size_t i = 0; i < a.tensors.size(); ++i) EXPECT_TRUE(a.tensors[i].second.equal(b.tensors[i].second)) << stage;
    EXPECT_TRUE(std::filesystem::exists(base::Path(pieces.output) / "result"));
  }
}

TEST_F(PreparedRuns, AskOnlyForWhatGoesTogether) {
  const auto refused = [&](const std::string& text, const std::string& stage,
                           const std::function<void(Recipe&)>& change) {
    Recipe changed = recipe(stage, "refused");
    change(changed);
    expect_error(ErrorCode::invalid_argument, text, [&] { validate(changed); });
  };
  refused("data.stored_logits: is for stage ceped", "ceped", [](Recipe& r) { r.stage = "cepe"; });
  refused("are for the stages cepe and ceped", "cepe", [](Recipe& r) { r.stage = "warmup"; });
  refused("loss.mode: full needs the teacher", "ceped", [](Recipe& r) { r.loss.mode = "full"; });
  refused("phases.0: windows 2", "cepe", [](Recipe& r) { r.phases[0].windows = 2; });
  refused("data.neighbours: needs data.retrieved", "ceped", [](Recipe& r) { r.data.neighbours = "joint"; });
  refused("set data.corpus, or validation.steps to 0", "cepe", [](Recipe& r) { r.validation.steps = 1; });
  refused("data.corpus: which folder?", "cepe", [](Recipe& r) { r.data.retrieved = ""; });
  // Told before the first step.
  Recipe wrong = recipe("ceped", "refused");
  wrong.loss.top = 50;
  expect_error(ErrorCode::invalid_argument, "expected [16, 51] or [8, 51]", [&] { train::train(wrong, {}); });
}

}  // namespace
}  // namespace cepe::train
