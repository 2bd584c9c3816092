// CEPE against the published code: states, logits, losses, every gradient, greedy continuation.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cat.h>
#include <gtest/gtest.h>

#include <map>

#include "base/json.h"
#include "fixtures.h"
#include "golden_tensors.h"
#include "model/load.h"
#include "model/losses.h"

namespace cepe::model {
namespace {

using test::distance;
using test::Golden;

base::Json case_json(const std::filesystem::path& folder) {
  return base::parse_json(base::read_file(folder / "case.json"), (folder / "case.json").string());
}

std::vector<std::filesystem::path> cases_with(const std::string& architecture) {
  std::vector<std::filesystem::path> found;
  for (const auto& folder : test::cases("reference")) {
    const base::Json config = base::parse_json(base::read_file(folder / "config.json"), folder.string());
    if (config.at("architectures").at(0) == architecture) found.push_back(folder);
  }
  return found;
}

LoadOptions in_float32() { return {WeightType::float32, at::kCPU, false}; }

// Gives every trained weight its gradient's place: marks them and afterwards lists name -> gradient.
template <class Model>
void require_gradients(Model& model) {
  visit_parameters(model, [](at::Tensor& parameter) { parameter = parameter.detach().clone().requires_grad_(true); });
}

template <class Model>
std::map<std::string, at::Tensor> gradients(Model model) {  // by value: the handles become the gradients
  visit_parameters(model, [](at::Tensor& parameter) { parameter = parameter.grad(); });
  std::map<std::string, at::Tensor> found;
  visit(model, [&](const std::string& name, at::Tensor& gradient) { found[name] = gradient; });
  return found;
}

void expect_gradients(const std::map<std::string, at::Tensor>& found, const Golden& golden, const std::string& prefix,
                      double tolerance) {
  int compared = 0;
  for (const std::string& name : golden.names()) {
    if (name.rfind(prefix, 0) != 0) continue;
    const auto place = found.find(name.substr(prefix.size()));
    ASSERT_NE(place, found.end()) << name;
    EXPECT_LE(distance(place->second, golden.at(name)), tolerance) << name;
    ++compared;
  }
  EXPECT_EQ(compared, static_cast<int>(found.size())) << "every trained weight has a golden gradient " << prefix;
}

struct Reference {
  explicit Reference(const std::filesystem::path& folder)
      : golden(folder / "case.safetensors"),
        source(open_model(folder)),
        model(load_model(source, in_float32())),
        json(case_json(folder)) {}
  Golden golden;
  ModelSource source;
  CepeModel model;
  base::Json json;

  std::vector<ContextStates> contexts() const {
    return encode_chunks(model.adapter->encoder, golden.at("encoder_input_ids"), golden.at("encoder_attention_mask"));
  }
  at::Tensor run(CrossAttentionPath path = CrossAttentionPath::automatic) const {
    return logits(model.decoder, forward(model, golden.at("input_ids"), contexts(), path));
  }
};

class CepeParity : public testing::Test {
 protected:
  std::vector<std::filesystem::path> folders = cases_with("LlamaForCausalContextLM");
};

TEST_F(CepeParity, EncoderStatesOfRealTokens) {
  CEPE_SKIP_WITHOUT(folders);
  const at::NoGradGuard none;
  for (const auto& folder : folders) {
    SCOPED_TRACE(folder);
    const Reference reference(folder);
    const at::Tensor mask = reference.golden.at("encoder_attention_mask").ne(0);
    const at::Tensor golden = reference.golden.at("encoder_states");
    std::vector<at::Tensor> rows;
    for (const ContextStates& context : reference.contexts())
      rows.insert(rows.end(), context.pages.begin(), context.pages.end());
    EXPECT_LE(distance(at::cat(rows, 0), golden.index({mask})), test::float_tolerance);
  }
}

TEST_F(CepeParity, LogitsWithContextByEveryPath) {
  CEPE_SKIP_WITHOUT(folders);
  const at::NoGradGuard none;
  for (const auto& folder : folders) {
    SCOPED_TRACE(folder);
    const Reference reference(folder);
    const at::Tensor golden = reference.golden.at("logits");
    EXPECT_LE(distance(reference.run(CrossAttentionPath::projected), golden), test::float_tolerance);
    EXPECT_LE(distance(reference.run(CrossAttentionPath::absorbed), golden), test::float_tolerance);
    std::vector<ContextStates> contexts = reference.contexts();
    for (ContextStates& context : contexts) {
      if (context.rows > 0)
        keep_projections(context, cross_attention_blocks(reference.model), head_shape(reference.model.decoder.config),
                         at::kFloat);
    }
    const at::Tensor kept =
        forward(reference.model, reference.golden.at("input_ids"), contexts, CrossAttentionPath::kept);
    EXPECT_LE(distance(logits(reference.model.decoder, kept), golden), test::float_tolerance);
  }
}

TEST_F(CepeParity, LogitsWithoutContextAreTheFrozenDecodersBitForBit) {
  CEPE_SKIP_WITHOUT(folders);
  const at::NoGradGuard none;
  for (const auto& folder : folders) {
    SCOPED_TRACE(folder);
    const Reference reference(folder);
    const at::Tensor tokens = reference.golden.at("input_ids");
    const at::Tensor found =
        logits(reference.model.decoder,
               forward(reference.model, tokens, std::vector<ContextStates>(static_cast<size_t>(tokens.size(0)))));
    EXPECT_LE(distance(found, reference.golden.at("logits_without_context")), test::float_tolerance);
    const at::Tensor frozen =
        logits(reference.model.decoder, forward(reference.model.decoder, uniform_layout(tokens), nullptr));
    EXPECT_TRUE(found.reshape({-1}).equal(frozen.reshape({-1})));
    // All chunks masked counts as no context.
    const at::Tensor chunks = reference.golden.at("encoder_input_ids");
    const auto absent = encode_chunks(reference.model.adapter->encoder, chunks, chunks * 0);
    EXPECT_TRUE(logits(reference.model.decoder, forward(reference.model, tokens, absent)).equal(found));
  }
}

TEST_F(CepeParity, GreedyContinuationWithACache) {
  CEPE_SKIP_WITHOUT(folders);
  const at::NoGradGuard none;
  for (const auto& folder : folders) {
    SCOPED_TRACE(folder);
    const Reference reference(folder);
    const at::Tensor prompts = reference.golden.at("greedy_prompt"), golden = reference.golden.at("greedy");
    const DecoderConfig& config = reference.model.decoder.config;
    const std::vector<ContextStates> contexts = reference.contexts();
    for (int64_t b = 0; b < prompts.size(0); ++b) {
      KvCache cache =
          make_kv_cache(config.layers, prompts.size(1) + golden.size(1), config.groups, config.head_width, at::kFloat);
      const CrossAttentionInput cross = {
          cross_attention_blocks(reference.model), {&contexts[static_cast<size_t>(b)]}, CrossAttentionPath::automatic};
      at::Tensor tokens = prompts[b];
      int64_t cached = 0;
      for (int64_t step = 0; step < golden.size(1); ++step) {
        const at::Tensor hidden = forward(reference.model.decoder, single_layout(tokens, cached), &cache, cross);
        cached += tokens.size(0);
        tokens = logits(reference.model.decoder, hidden.narrow(0, hidden.size(0) - 1, 1)).argmax(-1);
        ASSERT_EQ(tokens.item<int64_t>(), golden[b][step].item<int64_t>()) << "row " << b << " step " << step;
      }
    }
  }
}

TEST_F(CepeParity, LossesAndEveryGradient) {
  CEPE_SKIP_WITHOUT(folders);
  for (const auto& folder : folders) {
    SCOPED_TRACE(folder);
    Reference reference(folder);
    const at::Tensor labels = reference.golden.at("labels");
    require_gradients(*reference.model.adapter);
    const at::Tensor loss = language_modelling_loss(reference.run(), labels);
    EXPECT_LE(distance(loss, reference.golden.at("lm_loss").reshape({})), test::float_tolerance);
    loss.backward();
    expect_gradients(gradients(*reference.model.adapter), reference.golden, "grad.", test::gradient_tolerance);

    if (reference.json.at("kl_loss_mode").is_null()) continue;
    require_gradients(*reference.model.adapter);
    const at::Tensor values = reference.run();
    const DistillationMode mode = distillation_mode(reference.json.at("kl_loss_mode").get<std::string>());
    const at::Tensor divergence =
        distillation_loss(values, reference.golden.at("distill_prob"), reference.golden.at("distill_index"), mode);
    const double lm_share = base::json_number(reference.source.config, "lm_loss_cof", folder, 1);
    const double kl_share = base::json_number(reference.source.config, "kl_loss_cof", folder, 2);
    const at::Tensor total = lm_share * language_modelling_loss(values, labels) + kl_share * divergence;
    EXPECT_LE(distance(total, reference.golden.at("total_loss").reshape({})), test::float_tolerance);
    total.backward();
    expect_gradients(gradients(*reference.model.adapter), reference.golden, "kl_grad.", test::gradient_tolerance);
  }
}

TEST(MaskedLanguageModelParity, LogitsLossAndGradients) {
  const auto folders = cases_with("LlamaForMLM");
  CEPE_SKIP_WITHOUT(folders);
  for (const auto& folder : folders) {
    SCOPED_TRACE(folder);
    const Golden golden(folder / "case.safetensors");
    MaskedLanguageModel model = load_masked_language_model(folder, in_float32());
    require_gradients(model);
    const at::Tensor values = forward(model, golden.at("input_ids"), golden.at("attention_mask"));
    const at::Tensor mask = golden.at("attention_mask").ne(0);
    EXPECT_LE(distance(values.index({mask}), golden.at("logits").index({mask})), test::float_tolerance);
    const at::Tensor loss = masked_language_modelling_loss(values, golden.at("labels"));
    EXPECT_LE(distance(loss, golden.at("loss").reshape({})), test::float_tolerance);
    loss.backward();
    expect_gradients(gradients(model), golden, "grad.", test::gradient_tolerance);
  }
}

}  // namespace
}  // namespace cepe::model
