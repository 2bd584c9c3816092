// What a test of training needs: corpora of given ids, recipes of models of a few thousand weights, and what a run
// left.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "base/log.h"
#include "checkpoint_states.h"
#include "data/corpus_writer.h"
#include "temporary_folder.h"
#include "train/optimiser.h"
#include "train/trainee.h"
#include "train/trainer.h"

namespace cepe::test {

using Ids = std::vector<text::Token>;

inline data::TokenCorpus write_corpus(const base::Path& folder, int64_t vocabulary, const std::vector<Ids>& documents) {
  data::CorpusWriterSettings settings;
  settings.vocabulary = vocabulary;
  data::CorpusWriter writer(folder, settings);
  for (const Ids& ids : documents) writer.append({"document-" + std::to_string(writer.documents()), "", "made"}, ids);
  writer.finish();
  return data::TokenCorpus::open(folder);
}

// Document d holds d * 1000, d * 1000 + 1, ...: an id tells its document and its place.
inline std::vector<Ids> numbered_documents(size_t count, size_t length) {
  std::vector<Ids> documents(count, Ids(length));
  for (size_t d = 0; d < count; ++d)
    for (size_t i = 0; i < length; ++i) documents[d][i] = static_cast<text::Token>(d * 1000 + i);
  return documents;
}

// Ids of which each mostly follows from the one before: something to learn in few steps.
inline std::vector<Ids> learnable_documents(size_t count, size_t length, int vocabulary, uint64_t seed = 1) {
  std::mt19937_64 random(seed);
  std::vector<Ids> documents(count, Ids(length));
  for (Ids& ids : documents) {
    auto id = static_cast<text::Token>(random() % static_cast<uint64_t>(vocabulary));
    for (text::Token& place : ids) {
      place = id;
      id = static_cast<text::Token>((id * 5 + 3 + static_cast<text::Token>(random() % 4 == 0)) % vocabulary);
    }
  }
  return documents;
}

struct DecoderShape {
  int64_t vocabulary = 32, width = 16, layers = 2, heads = 2, groups = 1, feed_forward = 32;
};

inline base::Path write_decoder_config(const TemporaryFolder& folder, const DecoderShape& shape) {
  const base::Json config = {{"architectures", {"LlamaForCausalLM"}},
                             {"model_type", "llama"},
                             {"hidden_size", shape.width},
                             {"intermediate_size", shape.feed_forward},
                             {"num_hidden_layers", shape.layers},
                             {"num_attention_heads", shape.heads},
                             {"num_key_value_heads", shape.groups},
                             {"hidden_act", "silu"},
                             {"rms_norm_eps", 1e-5},
                             {"rope_theta", 10000.0},
                             {"max_position_embeddings", 512},
                             {"tie_word_embeddings", false},
                             {"torch_dtype", "float32"},
                             {"vocab_size", shape.vocabulary}};
  return folder.write("decoder/config.json", config.dump());
}

// Folder, corpus and decoder of a test, and a recipe of six steps over them that trains everything.
class TrainingRuns : public testing::Test {
 protected:
  TrainingRuns() {
    write_corpus(folder / "corpus", DecoderShape().vocabulary,
                 learnable_documents(40, 64, static_cast<int>(DecoderShape().vocabulary)));
    config_ = write_decoder_config(folder, {});
  }

  train::Recipe recipe_of(const std::string& output) const {
    train::Recipe recipe;
    recipe.output = (folder / output).string();
    recipe.decoder.config = config_.string();
    recipe.trainable = {"encoder", "cross_attention", "decoder"};
    recipe.adapter.encoder = "random";
    recipe.adapter.encoder_layers = 1;
    recipe.adapter.encoder_width = 16;
    recipe.adapter.encoder_heads = 2;
    recipe.adapter.encoder_feed_forward = 16;
    recipe.adapter.start = "none";
    recipe.adapter.chunk_size = 8;
    recipe.data.corpus = (folder / "corpus").string();
    recipe.phases = {{.steps = 3, .batch = 4, .context_tokens = 8, .decoder_tokens = 8, .windows = 2},
                     {.steps = 3, .batch = 4, .micro_batch = 2, .decoder_tokens = 16, .windows = 2}};
    recipe.optimiser.rate = 1e-2;
    recipe.checkpoint.minutes = 0;
    return recipe;
  }

  TemporaryFolder folder;
  base::Path config_;
};

// The same for tests in which a run warns and tells of its steps as it should.
class QuietTrainingRuns : public TrainingRuns {
 protected:
  QuietTrainingRuns() { base::set_log_level(base::LogLevel::error); }
  ~QuietTrainingRuns() override { base::set_log_level(base::LogLevel::notice); }
};

inline train::TrainResult run(const train::Recipe& recipe) { return train::train(recipe, {}); }

inline train::CheckpointFolder checkpoints_of(const train::Recipe& recipe) {
  return {base::Path(recipe.output) / "checkpoints", recipe.checkpoint.keep};
}

// The newest checkpoint: everything that a run knows at its end.
inline train::CheckpointState left_by(const train::Recipe& recipe) {
  return checkpoints_of(recipe).load_newest().value().second;
}

inline std::vector<base::Json> metrics_of(const train::Recipe& recipe) {
  std::vector<base::Json> lines;
  std::istringstream text(content_of(base::Path(recipe.output) / "metrics.jsonl"));
  for (std::string line; std::getline(text, line);) lines.push_back(base::Json::parse(line));
  return lines;
}

// A trainee with the weights of a run's newest checkpoint.
inline std::unique_ptr<train::Trainee> trained_by(const train::Recipe& recipe, int64_t vocabulary) {
  auto trainee = train::make_trainee(recipe, vocabulary, {}, at::kCPU);
  train::Optimiser optimiser(trainee->parameters, recipe.optimiser, 0);
  std::map<std::string, at::Tensor> found;
  for (auto& [name, tensor] : left_by(recipe).tensors) found[name] = tensor;
  optimiser.visit([&](const std::string& name, at::Tensor& tensor) { tensor.copy_(found.at(name)); });
  optimiser.restored(recipe.steps());
  return trainee;
}

}  // namespace cepe::test
