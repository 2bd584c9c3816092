// Real models on real text: SmolLM2 from its GGUF file, with weights dequantised and as they are, and a trained adapter
// for it.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/topk.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "base/error.h"
#include "base/json.h"
#include "fixtures.h"
#include "golden_tensors.h"
#include "model/adapter.h"
#include "model/load.h"
#include "model/locate.h"

namespace cepe::model {
namespace {

using test::Golden;

std::optional<base::Path> smollm2() {
  try {
    return default_model(base::default_cache_folder());
  } catch (const base::Error&) {
    return std::nullopt;
  }
}

LoadOptions options_of(WeightType type) { return {type, at::kCPU, false}; }

// ln p(ids[t + 1]) for t = 0 .. T-2.
at::Tensor next_token_log_probabilities(const at::Tensor& values, const at::Tensor& ids) {
  const int64_t last = ids.size(0) - 1;
  return at::log_softmax(values.narrow(0, 0, last), -1).gather(1, ids.narrow(0, 1, last).unsqueeze(1)).squeeze(1);
}

class SmolLM2 : public testing::Test {
 protected:
  void SetUp() override {
    folders_ = std::filesystem::exists(test::fixtures() / "pretrained/smollm2/case.safetensors");
    if (!folders_) GTEST_SKIP() << "no golden case pretrained/smollm2 in " << test::fixtures();
    if (!smollm2()) GTEST_SKIP() << "the default model is not there; scripts/fetch-models gets it";
    golden_.emplace(test::fixtures() / "pretrained/smollm2/case.safetensors");
  }
  bool folders_ = false;
  std::optional<Golden> golden_;
  const at::NoGradGuard none_;
};

TEST_F(SmolLM2, DequantisedLogProbabilitiesTopTokensAndGreedyPath) {
  const ModelSource source = open_model(*smollm2());
  const Decoder decoder = load_decoder(source, options_of(WeightType::float32));
  for (int i = 0; golden_->contains(std::to_string(i) + ".input_ids"); ++i) {
    const std::string prefix = std::to_string(i) + ".";
    const at::Tensor ids = golden_->at(prefix + "input_ids"), greedy = golden_->at(prefix + "greedy");
    KvCache cache = make_kv_cache(decoder.config.layers, ids.size(0) + greedy.size(0), decoder.config.groups,
                                  decoder.config.head_width, at::kFloat);
    at::Tensor values = logits(decoder, forward(decoder, single_layout(ids, 0), &cache));
    const double worst = next_token_log_probabilities(values, ids)
                             .sub(golden_->at(prefix + "next_token_logprob"))
                             .abs()
                             .max()
                             .item<double>();
    EXPECT_LE(worst, 1e-3);

    const at::Tensor golden_ids = golden_->at(prefix + "top_ids");
    const auto [top_values, top_ids] =
        at::topk(values.narrow(0, ids.size(0) - golden_ids.size(0), golden_ids.size(0)), golden_ids.size(1));
    EXPECT_TRUE(top_ids.equal(golden_ids));
    EXPECT_LE(top_values.sub(golden_->at(prefix + "top_logits")).abs().max().item<double>(), 1e-3);

    int64_t cached = ids.size(0);
    for (int64_t step = 0; step < greedy.size(0); ++step) {
      const at::Tensor token = values.narrow(0, values.size(0) - 1, 1).argmax(-1);
      ASSERT_EQ(token.item<int64_t>(), greedy[step].item<int64_t>()) << "text " << i << " step " << step;
      values = logits(decoder, forward(decoder, single_layout(token, cached++), &cache));
    }
  }
}

TEST_F(SmolLM2, BlocksAsTheyAreStayCloseToTheDequantisedModel) {
  const ModelSource source = open_model(*smollm2());
  const Decoder decoder = load_decoder(source, options_of(WeightType::automatic));
  EXPECT_TRUE(decoder.layers.front().attention.query_key_value.packed) << "blocks should stay packed";
  EXPECT_LE(weight_bytes(decoder), 110'000'000);
  for (int i = 0; golden_->contains(std::to_string(i) + ".input_ids"); ++i) {
    const std::string prefix = std::to_string(i) + ".";
    const at::Tensor ids = golden_->at(prefix + "input_ids");
    const at::Tensor golden = golden_->at(prefix + "next_token_logprob");
    const auto compare = [&](const at::Tensor& values, const char* what) {
      const at::Tensor found = next_token_log_probabilities(values, ids);
      EXPECT_LE(found.sub(golden).abs().mean().item<double>(), 0.05) << what;
      EXPECT_LE(std::abs(found.mean().item<double>() - golden.mean().item<double>()), 5e-3) << what;
    };
    compare(logits(decoder, forward(decoder, single_layout(ids, 0), nullptr)),
            "all rows at once (unpacked to scratch)");
    if (i > 0) continue;
    KvCache cache = make_kv_cache(decoder.config.layers, ids.size(0), decoder.config.groups, decoder.config.head_width,
                                  at::kBFloat16);
    std::vector<at::Tensor> rows;
    for (int64_t t = 0; t < ids.size(0); ++t)
      rows.push_back(forward(decoder, single_layout(ids.narrow(0, t, 1), t), &cache));
    compare(logits(decoder, at::cat(rows, 0)), "row by row (block kernels)");
  }
}

class TrainedAdapter : public testing::Test {
 protected:
  base::Path folder_ = test::fixtures() / "pretrained/cepe-trial";
  const at::NoGradGuard none_;
  void SetUp() override {
    if (!std::filesystem::exists(folder_ / "case.safetensors"))
      GTEST_SKIP() << "no golden case pretrained/cepe-trial in " << test::fixtures();
    if (!smollm2()) GTEST_SKIP() << "the default model is not there; scripts/fetch-models gets it";
  }

  CepeModel load(WeightType type) const {
    CepeModel model = load_model(open_model(*smollm2()), options_of(type));
    model.adapter = load_adapter(folder_, model.decoder, options_of(type));
    return model;
  }

  // -ln p of ids[8193 : 9217] in a decoder window that starts at ids[8192].
  static at::Tensor negative_log_likelihood(const CepeModel& model, const at::Tensor& ids, const at::Tensor& context) {
    std::vector<ContextStates> contexts(1);
    if (context.defined())
      contexts = encode_chunks(model.adapter->encoder, context.reshape({1, -1, model.adapter->chunk_size}), {});
    const at::Tensor window = ids.narrow(0, 8192, ids.size(0) - 8192);
    return -next_token_log_probabilities(logits(model.decoder, forward(model, window.unsqueeze(0), contexts)[0]),
                                         window);
  }

  void check(WeightType type, double token_tolerance, double perplexity_tolerance) const {
    const Golden golden(folder_ / "case.safetensors");
    const CepeModel model = load(type);
    for (int n = 0; golden.contains(std::to_string(n) + ".input_ids"); ++n) {
      const std::string prefix = std::to_string(n) + ".";
      const at::Tensor ids = golden.at(prefix + "input_ids");
      const auto own = [&](int64_t length) { return ids.narrow(0, 8192 - length, length); };
      const std::vector<std::pair<std::string, at::Tensor>> contexts = {
          {"none", {}},
          {"own_2048", own(2048)},
          {"own_8192", own(8192)},
          {"other_8192", golden.at(prefix + "other_ids")}};
      std::map<std::string, double> perplexity;
      for (const auto& [name, context] : contexts) {
        const at::Tensor expected = golden.at(prefix + "nll." + name);
        const at::Tensor found = negative_log_likelihood(model, ids, context);
        perplexity[name] = std::exp(found.mean().item<double>());
        EXPECT_LE(found.sub(expected).abs().max().item<double>(), token_tolerance) << n << " " << name;
        EXPECT_NEAR(perplexity[name] / std::exp(expected.mean().item<double>()), 1.0, perplexity_tolerance)
            << n << " " << name;
      }
      EXPECT_LT(perplexity["own_8192"], perplexity["other_8192"]);
      EXPECT_LT(perplexity["own_8192"], perplexity["none"]);
    }
  }
};

TEST_F(TrainedAdapter, EncoderStatesAndLikelihoodsInFloat32) {
  const Golden golden(folder_ / "case.safetensors");
  const CepeModel model = load(WeightType::float32);
  const at::Tensor context = golden.at("0.input_ids").narrow(0, 8192 - 2048, 2048).reshape({1, -1, 256});
  const at::Tensor states = encode_chunks(model.adapter->encoder, context, {}).front().pages.front();
  EXPECT_LE(test::distance(states.slice(0, 0, 2048, 64), golden.at("0.states.own_2048")), test::float_tolerance);
  check(WeightType::float32, 1e-3, 1e-4);
}

TEST_F(TrainedAdapter, PerplexityWithBlocksAndInt8RowsAsTheyAre) { check(WeightType::automatic, 10, 0.005); }

}  // namespace
}  // namespace cepe::model
