// The engine over the real default model: the same greedy path and likelihoods as the golden cases, and what a user
// sees.
#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "engine/engine.h"
#include "fixtures.h"
#include "golden_tensors.h"
#include "model/load.h"
#include "model/locate.h"

namespace cepe::engine {
namespace {

class RealEngine : public testing::Test {
 protected:
  void SetUp() override {
    try {
      source_.emplace(model::open_model(model::default_model(base::default_cache_folder())));
    } catch (const base::Error&) {
      GTEST_SKIP() << "the default model is not there; scripts/fetch-models gets it";
    }
    tokenizer_ = text::load_gguf_tokenizer(source_->checkpoint);
  }
  model::CepeModel load(model::WeightType type) const { return model::load_model(*source_, {type, at::kCPU, false}); }

  std::optional<model::ModelSource> source_;
  std::unique_ptr<text::Tokenizer> tokenizer_;
};

std::vector<text::Token> ids_of(const at::Tensor& tensor) {
  std::vector<text::Token> ids;
  for (int64_t i = 0; i < tensor.size(0); ++i) ids.push_back(static_cast<text::Token>(tensor[i].item<int64_t>()));
  return ids;
}

TEST_F(RealEngine, GreedyPathsAndScoresEqualTheGoldenOnes) {
  const auto file = test::fixtures() / "pretrained/smollm2/case.safetensors";
  if (!std::filesystem::exists(file)) GTEST_SKIP() << "no golden case pretrained/smollm2 in " << test::fixtures();
  const test::Golden golden(file);
  const model::CepeModel model = load(model::WeightType::float32);
  Engine engine(model, *tokenizer_, {model::CrossAttentionPath::automatic, 0, 200});
  Request request;
  request.prompt = ids_of(golden.at("0.input_ids"));
  request.max_tokens = golden.at("0.greedy").size(0);
  EXPECT_EQ(engine.generate(request).tokens, ids_of(golden.at("0.greedy")));
  const at::Tensor scores = engine.score(request.prompt, 100);
  EXPECT_LE(scores.sub(golden.at("0.next_token_logprob").slice(0, 100)).abs().max().item<double>(), 1e-3);
}

TEST_F(RealEngine, StreamedTextIsTheWholeTextAndStopStringsAreLeftOut) {
  const model::CepeModel model = load(model::WeightType::automatic);
  Engine engine(model, *tokenizer_);
  Request request;
  request.prompt = tokenizer_->encode("The capital of France is");
  request.max_tokens = 24;
  std::string streamed;
  request.on_step = [&](const Step& step) {
    streamed += step.text;
    return true;
  };
  const Completion whole = engine.generate(request);
  EXPECT_EQ(streamed, whole.text);
  EXPECT_EQ(whole.text, tokenizer_->decode(whole.tokens));
  EXPECT_EQ(whole.finish, Finish::length);
  ASSERT_GT(whole.text.size(), 12u);

  // A stop string that starts in the middle of one token and ends in another.
  request.stop = {whole.text.substr(7, 5)};
  streamed.clear();
  const Completion stopped = engine.generate(request);
  EXPECT_EQ(stopped.finish, Finish::stop);
  EXPECT_EQ(stopped.text, whole.text.substr(0, whole.text.find(request.stop[0])));
  EXPECT_EQ(streamed, stopped.text);
}

TEST_F(RealEngine, RequestsThatMakeNoSenseAreRefused) {
  const model::CepeModel model = load(model::WeightType::automatic);
  Engine engine(model, *tokenizer_);
  Request request;
  EXPECT_THROW(engine.generate(request), base::Error);
  request.prompt.assign(static_cast<size_t>(model.decoder.config.max_positions) + 1, 5);
  EXPECT_THROW(engine.generate(request), base::Error);
  request.prompt = {5, static_cast<text::Token>(model.decoder.config.vocabulary)};
  EXPECT_THROW(engine.generate(request), base::Error) << "an id outside the vocabulary";
  EXPECT_THROW(engine.score(request.prompt), base::Error);
  model::ContextStates context;
  context.append(at::zeros({4, 576}));
  EXPECT_THROW(engine.set_context(std::move(context)), base::Error) << "a context without an adapter";
}

}  // namespace
}  // namespace cepe::engine
