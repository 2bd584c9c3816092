#include "eval/engine_scorer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "expect_error.h"
#include "golden_tensors.h"
#include "tiny_models.h"

namespace cepe::eval {
namespace {

using text::Token;

// Scoring needs no text.
class NoText : public text::Tokenizer {
 public:
  std::vector<Token> encode(std::string_view /*text*/, const text::EncodeOptions& /*options*/) const override {
    return {};
  }
  std::unique_ptr<text::Detokenizer> detokenizer(bool /*skip_special*/) const override { return nullptr; }
  int64_t vocabulary_size() const override { return 96; }
  std::optional<Token> id_of(std::string_view /*token*/) const override { return std::nullopt; }
  std::string token_of(Token /*id*/) const override { return ""; }
  bool is_special(Token /*id*/) const override { return false; }
};

struct EngineScorer : testing::Test {
  const at::NoGradGuard none;
  model::CepeModel model = test::tiny_model(21);
  NoText tokenizer;
  context::ContextStore store{*model.adapter, {}};
  engine::Engine engine{model, tokenizer, scoring_options(12)};
  const Scorer score = engine_scorer(engine, &store);
  const at::Tensor ids = test::TinyWeights(22).tokens({12}, 96), before = test::TinyWeights(23).tokens({19}, 96);

  static std::vector<Token> tokens_of(const at::Tensor& tensor) {
    const int64_t* first = tensor.const_data_ptr<int64_t>();
    return {first, first + tensor.numel()};
  }
  // The whole model at once, without engine and store.
  at::Tensor expected(const std::vector<context::Chunk>& chunks, int64_t targets) const {
    model::ContextStates states;
    for (const context::Chunk& chunk : chunks) {
      const std::vector<int64_t> wide(chunk.ids.begin(), chunk.ids.end());
      states.append(model::forward(model.adapter->encoder, at::tensor(wide).unsqueeze(0))[0]);
    }
    const at::Tensor logits = model::logits(model.decoder, model::forward(model, ids.unsqueeze(0), {states})[0]);
    const at::Tensor all = at::log_softmax(logits, -1).narrow(0, 11 - targets, targets);
    return at::gather(all, 1, ids.narrow(0, 12 - targets, targets).unsqueeze(1)).squeeze(1);
  }
};

TEST_F(EngineScorer, GivesTheLogProbabilitiesOfTheLastTokens) {
  for (const int64_t length : {0, 5, 19}) {
    const auto chunks = chunks_before(tokens_of(before), length, 8);
    for (const int64_t targets : {1, 4, 11}) {
      const std::vector<float> found = score(chunks, tokens_of(ids), targets);
      EXPECT_LE(test::distance(at::tensor(found), expected(chunks, targets)), 1e-5) << length << " " << targets;
    }
  }
}

TEST_F(EngineScorer, AContextIsGoneForTheNextWindowWithoutOne) {
  const std::vector<float> alone = score({}, tokens_of(ids), 4);
  EXPECT_NE(score(chunks_before(tokens_of(before), 19, 8), tokens_of(ids), 4), alone);
  EXPECT_EQ(score({}, tokens_of(ids), 4), alone);
}

TEST_F(EngineScorer, DirectTokensMayGoBeyondRotaryPositionsButNotBeyondLearnedOnes) {
  model.decoder.config.max_positions = 10;
  test::expect_error(base::ErrorCode::invalid_argument, "the decoder reads at most 10",
                     [&] { score({}, tokens_of(ids), 4); });
  engine::Engine further{model, tokenizer, scoring_options(8, 4)};
  const std::vector<float> found = engine_scorer(further, nullptr)({}, tokens_of(ids), 4);
  EXPECT_LE(test::distance(at::tensor(found), expected({}, 4)), 1e-5);
  model.decoder.config.learned_positions = true;
  model.decoder.position_embedding = at::zeros({10, model.decoder.config.width});
  test::expect_error(base::ErrorCode::invalid_argument, "10 learned positions",
                     [&] { engine_scorer(further, nullptr)({}, tokens_of(ids), 4); });
}

TEST_F(EngineScorer, WithoutAStoreAContextIsRefused) {
  const Scorer bare = engine_scorer(engine, nullptr);
  EXPECT_EQ(bare({}, tokens_of(ids), 4).size(), 4U);
  test::expect_error(base::ErrorCode::invalid_argument, "needs an adapter",
                     [&] { bare(chunks_before(tokens_of(before), 8, 8), tokens_of(ids), 4); });
}

}  // namespace
}  // namespace cepe::eval
