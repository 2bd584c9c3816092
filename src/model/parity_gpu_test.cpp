// The golden cases on a GPU: decoder families, CEPE by each path of its cross-attention, SmolLM2 and a trained adapter
// for it. float32 tells whether the arithmetic is the same (no TF32), bfloat16 whether it holds in the type that GPUs
// are used with. Each comparison prints its distance: tolerances are set from what was measured.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/topk.h>

#include <cstdio>
#include <functional>

#include "base/json.h"
#include "fixtures.h"
#include "golden_tensors.h"
#include "gpu.h"
#include "model/adapter.h"
#include "model/load.h"
#include "model/locate.h"

namespace cepe::model {
namespace {

using std::filesystem::path;
using test::Golden;

// Products on a GPU are summed in other orders than on the CPU, and cos and sin differ in the last place.
constexpr double gpu_float_tolerance = 1e-4;
// Just above the largest distance measured on an H200, 2.35e-2 (gemma3, olmo2). Not the 2e-2 that larger models are
// held to: these are tiny and random, and rounding their weights alone (float32 activations, on the CPU) moves logits
// by up to 2.1e-2 (gemma3) and 2.3e-2 (cepe-gqa-last3-padded). Those of tests/golden are smaller still: 3.7e-2 (llama),
// and twice that with activations rounded too.
double bfloat16_tolerance() { return test::fixtures().filename() == "golden" ? 8e-2 : 2.5e-2; }

std::string name_of(const path& folder) { return folder.filename().string(); }

std::vector<path> reference_folders() {
  std::vector<path> found;
  for (const path& folder : test::cases("reference")) {
    const base::Json config = base::parse_json(base::read_file(folder / "config.json"), folder.string());
    if (config.at("architectures").at(0) == "LlamaForCausalContextLM") found.push_back(folder);
  }
  return found;
}

class ModelOnGpu : public test::OnGpu {
 protected:
  static at::Tensor there(const at::Tensor& tensor) { return tensor.to(device()); }
  static LoadOptions options(WeightType type) { return {type, device(), false}; }

  static void expect_close(const at::Tensor& found, const at::Tensor& golden, WeightType type,
                           const std::string& what) {
    const double distance = test::distance(found.to(at::kCPU), golden);
    const bool exact = type == WeightType::float32;
    std::printf("  %-8s %-48s %.2e\n", exact ? "float32" : "bfloat16", what.c_str(), distance);
    EXPECT_LE(distance, exact ? gpu_float_tolerance : bfloat16_tolerance()) << what;
  }

  // Greedy ids of one sequence, each token by itself over a cache. prompt [T] on the GPU.
  static void expect_greedy(const Decoder& decoder, const at::Tensor& prompt, const at::Tensor& golden,
                            const CrossAttentionInput& cross, const std::string& what) {
    const DecoderConfig& config = decoder.config;
    KvCache cache = make_kv_cache(config.layers, prompt.size(0) + golden.size(0), config.groups, config.head_width,
                                  at::TensorOptions(device()).dtype(at::kFloat));
    at::Tensor tokens = prompt;
    int64_t cached = 0;
    for (int64_t step = 0; step < golden.size(0); ++step) {
      const at::Tensor hidden = forward(decoder, single_layout(tokens, cached), &cache, cross);
      cached += tokens.size(0);
      tokens = logits(decoder, hidden.narrow(0, hidden.size(0) - 1, 1)).argmax(-1);
      ASSERT_EQ(tokens.item<int64_t>(), golden[step].item<int64_t>()) << what << ", step " << step;
    }
  }

  const at::NoGradGuard none_;
};

// ---- Families

class FamiliesOnGpu : public ModelOnGpu {
 protected:
  std::vector<path> folders = test::cases("families");

  static void expect_logits(const path& folder, WeightType type) {
    const Decoder decoder = load_decoder(open_model(folder), options(type));
    const Golden golden(folder / "case.safetensors");
    const auto run = [&](const at::Tensor& tokens) {
      const at::Tensor hidden = forward(decoder, uniform_layout(there(tokens)), nullptr);
      return logits(decoder, hidden).view({tokens.size(0), tokens.size(1), -1});
    };
    const at::Tensor tokens = golden.at("input_ids");
    expect_close(run(tokens), golden.at("logits"), type, name_of(folder));
    expect_close(run(tokens.narrow(1, 0, 40)), golden.at("logits_first_40"), type, name_of(folder) + ", 40 tokens");
  }
};

TEST_F(FamiliesOnGpu, LogitsInFloat32) {
  CEPE_SKIP_WITHOUT(folders);
  for (const path& folder : folders) expect_logits(folder, WeightType::float32);
}

TEST_F(FamiliesOnGpu, LogitsInBfloat16) {
  CEPE_SKIP_WITHOUT(folders);
  for (const path& folder : folders) expect_logits(folder, WeightType::bfloat16);
}

TEST_F(FamiliesOnGpu, GreedyIdsWithACache) {
  CEPE_SKIP_WITHOUT(folders);
  for (const path& folder : folders) {
    const Decoder decoder = load_decoder(open_model(folder), options(WeightType::float32));
    const Golden golden(folder / "case.safetensors");
    const at::Tensor prompts = golden.at("greedy_prompt"), greedy = golden.at("greedy");
    for (int64_t b = 0; b < prompts.size(0); ++b)
      expect_greedy(decoder, there(prompts[b]), greedy[b], {}, name_of(folder));
  }
}

// ---- CEPE

struct Reference {
  Reference(const path& folder, const LoadOptions& options)
      : golden(folder / "case.safetensors"),
        model(load_model(open_model(folder), options)),
        tokens(golden.at("input_ids").to(options.device)),
        contexts(encode_chunks(model.adapter->encoder, golden.at("encoder_input_ids").to(options.device),
                               golden.at("encoder_attention_mask").to(options.device))) {}
  Golden golden;
  CepeModel model;
  at::Tensor tokens;
  std::vector<ContextStates> contexts;

  at::Tensor run(CrossAttentionPath by) const { return logits(model.decoder, forward(model, tokens, contexts, by)); }
};

class CepeOnGpu : public ModelOnGpu {
 protected:
  std::vector<path> folders = reference_folders();

  static void expect_logits(const path& folder, WeightType type) {
    Reference reference(folder, options(type));
    const Golden& golden = reference.golden;
    const CepeModel& model = reference.model;
    const auto expect = [&](CrossAttentionPath by, const char* what) {
      expect_close(reference.run(by), golden.at("logits"), type, name_of(folder) + ", " + what);
    };
    expect(CrossAttentionPath::projected, "projected");
    expect(CrossAttentionPath::absorbed, "absorbed");
    expect(CrossAttentionPath::automatic, "automatic");
    for (ContextStates& context : reference.contexts) {
      if (context.rows > 0)
        keep_projections(context, cross_attention_blocks(model), head_shape(model.decoder.config),
                         type == WeightType::float32 ? at::kFloat : at::kBFloat16);
    }
    expect(CrossAttentionPath::kept, "kept");
    const std::vector<ContextStates> absent(static_cast<size_t>(reference.tokens.size(0)));
    const at::Tensor without = logits(model.decoder, forward(model, reference.tokens, absent));
    expect_close(without, golden.at("logits_without_context"), type, name_of(folder) + ", without context");
    const at::Tensor frozen = logits(model.decoder, forward(model.decoder, uniform_layout(reference.tokens), nullptr));
    EXPECT_TRUE(without.reshape({-1}).equal(frozen.reshape({-1}))) << "the frozen decoder's, bit for bit";
  }
};

TEST_F(CepeOnGpu, LogitsByEveryPathInFloat32) {
  CEPE_SKIP_WITHOUT(folders);
  for (const path& folder : folders) expect_logits(folder, WeightType::float32);
}

TEST_F(CepeOnGpu, LogitsByEveryPathInBfloat16) {
  CEPE_SKIP_WITHOUT(folders);
  for (const path& folder : folders) expect_logits(folder, WeightType::bfloat16);
}

TEST_F(CepeOnGpu, GreedyIdsWithContextAndACache) {
  CEPE_SKIP_WITHOUT(folders);
  for (const path& folder : folders) {
    const Reference reference(folder, options(WeightType::float32));
    const at::Tensor prompts = reference.golden.at("greedy_prompt"), greedy = reference.golden.at("greedy");
    for (const auto by : {CrossAttentionPath::automatic, CrossAttentionPath::projected, CrossAttentionPath::absorbed}) {
      for (int64_t b = 0; b < prompts.size(0); ++b) {
        const CrossAttentionInput cross = {
            cross_attention_blocks(reference.model), {&reference.contexts[static_cast<size_t>(b)]}, by};
        expect_greedy(reference.model.decoder, there(prompts[b]), greedy[b], cross, name_of(folder));
      }
    }
  }
}

// ---- Real models

// ln p(ids[t + 1]) for t = 0 .. T-2. values [T, V], ids [T].
at::Tensor next_token_log_probabilities(const at::Tensor& values, const at::Tensor& ids) {
  const int64_t last = ids.size(0) - 1;
  return at::log_softmax(values.narrow(0, 0, last), -1).gather(1, ids.narrow(0, 1, last).unsqueeze(1)).squeeze(1);
}

class PretrainedOnGpu : public ModelOnGpu {
 protected:
  std::optional<path> model_;

  void SetUp() override {
    ModelOnGpu::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    try {
      model_ = default_model(base::default_cache_folder());
    } catch (const base::Error& error) {
      GTEST_SKIP() << error.what();
    }
  }

  static bool has_case(const char* name) {
    return std::filesystem::exists(test::fixtures() / name / "case.safetensors");
  }
};

TEST_F(PretrainedOnGpu, SmolLM2LogProbabilitiesTopTokensAndGreedyPathInFloat32) {
  if (!has_case("pretrained/smollm2")) GTEST_SKIP() << "no golden case pretrained/smollm2 in " << test::fixtures();
  const Golden golden(test::fixtures() / "pretrained/smollm2/case.safetensors");
  const Decoder decoder = load_decoder(open_model(*model_), options(WeightType::float32));
  for (int i = 0; golden.contains(std::to_string(i) + ".input_ids"); ++i) {
    const std::string prefix = std::to_string(i) + ".";
    const at::Tensor ids = golden.at(prefix + "input_ids"), top = golden.at(prefix + "top_ids");
    const at::Tensor values = logits(decoder, forward(decoder, single_layout(there(ids), 0), nullptr)).to(at::kCPU);
    const at::Tensor found = next_token_log_probabilities(values, ids);
    const double worst = found.sub(golden.at(prefix + "next_token_logprob")).abs().max().item<double>();
    std::printf("  float32  SmolLM2, text %d: log-probabilities off by at most %.2e\n", i, worst);
    EXPECT_LE(worst, 2e-3);
    const auto [top_values, top_ids] = at::topk(values.narrow(0, ids.size(0) - top.size(0), top.size(0)), top.size(1));
    EXPECT_TRUE(top_ids.equal(top)) << "text " << i;
    expect_greedy(decoder, there(ids), golden.at(prefix + "greedy"), {}, "SmolLM2, text " + std::to_string(i));
  }
}

TEST_F(PretrainedOnGpu, SmolLM2MeanLogProbabilityInBfloat16) {
  if (!has_case("pretrained/smollm2")) GTEST_SKIP() << "no golden case pretrained/smollm2 in " << test::fixtures();
  const Golden golden(test::fixtures() / "pretrained/smollm2/case.safetensors");
  const Decoder decoder = load_decoder(open_model(*model_), options(WeightType::automatic));
  EXPECT_EQ(decoder.activation_type, at::kBFloat16);
  for (int i = 0; golden.contains(std::to_string(i) + ".input_ids"); ++i) {
    const std::string prefix = std::to_string(i) + ".";
    const at::Tensor ids = golden.at(prefix + "input_ids"), expected = golden.at(prefix + "next_token_logprob");
    const at::Tensor values = logits(decoder, forward(decoder, single_layout(there(ids), 0), nullptr)).to(at::kCPU);
    const at::Tensor found = next_token_log_probabilities(values, ids);
    const double each = found.sub(expected).abs().mean().item<double>();
    const double mean = std::abs(found.mean().item<double>() - expected.mean().item<double>());
    std::printf("  bfloat16 SmolLM2, text %d: log-probabilities off by %.2e each, %.2e together\n", i, each, mean);
    EXPECT_LE(each, 0.05);
    EXPECT_LE(mean, 1e-2);
  }
}

TEST_F(PretrainedOnGpu, TrainedAdapterLikelihoodsInFloat32) {
  if (!has_case("pretrained/cepe-trial")) GTEST_SKIP() << "no golden case cepe-trial in " << test::fixtures();
  const path folder = test::fixtures() / "pretrained/cepe-trial";
  const Golden golden(folder / "case.safetensors");
  CepeModel model = load_model(open_model(*model_), options(WeightType::float32));
  model.adapter = load_adapter(folder, model.decoder, options(WeightType::float32));
  const at::Tensor ids = golden.at("0.input_ids"), window = ids.narrow(0, 8192, ids.size(0) - 8192);
  for (const int64_t length : {2048, 8192}) {
    const at::Tensor chunks = ids.narrow(0, 8192 - length, length).reshape({1, -1, model.adapter->chunk_size});
    const std::vector<ContextStates> contexts = encode_chunks(model.adapter->encoder, there(chunks), {});
    const at::Tensor expected = golden.at("0.nll.own_" + std::to_string(length));
    for (const auto by : {CrossAttentionPath::projected, CrossAttentionPath::absorbed}) {
      const at::Tensor values = logits(model.decoder, forward(model, there(window.unsqueeze(0)), contexts, by)[0]);
      const at::Tensor found = -next_token_log_probabilities(values.to(at::kCPU), window);
      const double worst = found.sub(expected).abs().max().item<double>();
      std::printf("  float32  cepe-trial, %lld tokens of context, %s: off by at most %.2e\n",
                  static_cast<long long>(length), by == CrossAttentionPath::projected ? "projected" : "absorbed",
                  worst);
      EXPECT_LE(worst, 2e-3);
    }
  }
}

}  // namespace
}  // namespace cepe::model
