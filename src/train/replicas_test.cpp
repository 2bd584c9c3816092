#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <random>

#include "data/corpus_writer.h"
#include "expect_error.h"
#include "temporary_folder.h"
#include "train/checkpoint.h"
#include "train/trainer.h"

namespace cepe::train {
namespace {

constexpr const char* tiny_config = R"({
 "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 64,
 "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "hidden_act": "silu",
 "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "max_position_embeddings": 512, "tie_word_embeddings": true,
 "torch_dtype": "float32", "vocab_size": 64})";

class ReplicasOfOneRun : public testing::Test {
 protected:
  void SetUp() override {
    at::set_num_threads(1);  // replicas on one CPU would otherwise have a team of threads each
    data::CorpusWriterSettings settings;
    settings.vocabulary = 64;
    data::CorpusWriter writer(folder_ / "corpus", settings);
    std::mt19937 random(3);
    for (int document = 0; document < 6; ++document) {
      std::vector<text::Token> ids(400);
      for (text::Token& id : ids) id = static_cast<text::Token>(random() % 64);
      writer.append({"document-" + std::to_string(document), "", "text"}, ids);
    }
    writer.finish();
    folder_.write("config.json", tiny_config);
  }

  Recipe recipe(const std::string& output) const {
    Recipe recipe;
    recipe.output = folder_ / output;
    recipe.decoder.config = folder_ / "config.json";
    recipe.trainable = {"encoder", "cross_attention", "decoder"};
    recipe.adapter.encoder_layers = 1;
    recipe.adapter.chunk_size = 16;
    recipe.data.corpus = folder_ / "corpus";
    PhaseSettings phase;
    phase.steps = 4, phase.batch = 4, phase.micro_batch = 2, phase.decoder_tokens = 16, phase.windows = 3;
    phase.others = 0.5, phase.other_tokens = 16, phase.short_context = 0.3;
    recipe.phases = {phase};
    recipe.optimiser.kind = "muon";
    return recipe;
  }

  // What the run's last checkpoint holds.
  CheckpointState run(const Recipe& recipe, size_t replicas) const {
    TrainOptions options;
    options.devices = std::vector<c10::Device>(replicas, c10::kCPU);
    EXPECT_TRUE(train::train(recipe, options).finished);
    return CheckpointFolder(base::Path(recipe.output) / "checkpoints", 1).load_newest()->second;
  }

  test::TemporaryFolder folder_;
};

void expect_equal(const CheckpointState& a, const CheckpointState& b) {
  ASSERT_EQ(a.tensors.size(), b.tensors.size());
  for (size_t i = 0; i < a.tensors.size(); ++i)
    EXPECT_TRUE(a.tensors[i].second.equal(b.tensors[i].second)) << a.tensors[i].first;
}

TEST_F(ReplicasOfOneRun, TwoLearnWhatOneLearnsFromTheSameMicroBatches) {
  expect_equal(run(recipe("one"), 1), run(recipe("two"), 2));
}

TEST_F(ReplicasOfOneRun, ARunGoesOnWithAnotherNumberOfReplicas) {
  Recipe half = recipe("resumed");
  half.checkpoint.steps = 1;
  TrainOptions options;
  options.devices = {c10::kCPU, c10::kCPU};
  options.stop_after_seconds = 1e-9;  // one step
  const TrainResult stopped = train::train(half, options);
  EXPECT_FALSE(stopped.finished);
  EXPECT_EQ(stopped.steps, 1);
  expect_equal(run(half, 1), run(recipe("whole"), 1));
}

TEST_F(ReplicasOfOneRun, MicroBatchesThatCannotBeSharedAreRefused) {
  TrainOptions options;
  options.devices = {c10::kCPU, c10::kCPU, c10::kCPU};
  test::expect_error(base::ErrorCode::invalid_argument, "phases.0.micro_batch",
                     [&] { train::train(recipe("three"), options); });
}

TEST_F(ReplicasOfOneRun, TheNewestCheckpointIsExportedWithoutTraining) {
  Recipe half = recipe("exported");
  TrainOptions options;
  options.export_only = true;
  test::expect_error(base::ErrorCode::not_found, "no checkpoint", [&] { train::train(half, options); });
  options.export_only = false;
  options.stop_after_seconds = 1e-9;
  train::train(half, options);
  EXPECT_FALSE(std::filesystem::exists(base::Path(half.output) / "result"));
  options.export_only = true;
  EXPECT_EQ(train::train(half, options).steps, 1);
  EXPECT_TRUE(std::filesystem::exists(base::Path(half.output) / "result"));
}

}  // namespace
}  // namespace cepe::train
