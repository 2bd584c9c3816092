#include "model/masked_language_model.h"

#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "expect_error.h"
#include "model/load.h"
#include "temporary_folder.h"

namespace cepe::model {
namespace {

// No layers: the embedding and the head are what these tests are about.
MaskedLanguageModel tied_model() {
  constexpr int64_t vocabulary = 5, width = 4;
  MaskedLanguageModel model;
  model.encoder.embedding.weight = at::ones({vocabulary, width});
  model.encoder.norm.weight = at::ones({width});
  model.dense = {at::ones({width, width}), at::ones({width}), nullptr};
  model.norm.weight = at::ones({width});
  model.output = model.encoder.embedding;
  model.output.bias = at::ones({vocabulary});
  return model;
}

bool tied(const MaskedLanguageModel& model) { return model.output.weight.is_same(model.encoder.embedding.weight); }

TEST(MaskedLanguageModel, ATiedOutputFollowsTheEmbeddingThatAVisitorReplaces) {
  MaskedLanguageModel model = tied_model();
  int64_t parameters = 0;
  visit_parameters(model, [&](at::Tensor& parameter) {
    parameter = parameter.clone();
    ++parameters;
  });
  EXPECT_TRUE(tied(model));
  std::vector<std::string> names;
  visit(model, [&](const std::string& name, at::Tensor& tensor) {
    tensor = tensor.clone();
    names.push_back(name);
  });
  EXPECT_TRUE(tied(model));
  EXPECT_EQ(parameters, static_cast<int64_t>(names.size()));
  EXPECT_EQ(std::count(names.begin(), names.end(), "model.embed_tokens.weight"), 1);
  EXPECT_EQ(std::count(names.begin(), names.end(), "lm_head.weight"), 0);
}

TEST(MaskedLanguageModel, AnOutputOfItsOwnIsVisitedUnderItsName) {
  MaskedLanguageModel model = tied_model();
  model.output.weight = model.output.weight.clone();
  int64_t heads = 0;
  visit(model, [&](const std::string& name, at::Tensor&) { heads += name == "lm_head.weight"; });
  EXPECT_EQ(heads, 1);
}

TEST(MaskedLanguageModel, AConfigurationThatSharesADecodersEmbeddingsIsRefused) {
  const test::TemporaryFolder folder;
  folder.write("config.json",
               R"({"embeddings": "decoder", "hidden_size": 4, "intermediate_size": 4, "rms_norm_eps": 1e-5,
      "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 5, "model_type": "llama"})");
  test::expect_error(base::ErrorCode::corrupt, "config.json: field 'embeddings' is 'decoder'",
                     [&] { load_masked_language_model(folder.path(), {}); });
}

}  // namespace
}  // namespace cepe::model
