// Every family against Hugging Face transformers: logits, a shorter pass, greedy continuations with and without a
// cache; and GGUF files against the same weights in safetensors.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cat.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <utility>

#include "fixtures.h"
#include "golden_tensors.h"
#include "model/load.h"

namespace cepe::model {
namespace {

using test::distance;
using test::float_tolerance;
using test::Golden;

const std::filesystem::path small_set = "tests/golden";

// The golden cases, and the small set beside them.
std::vector<std::filesystem::path> family_folders() {
  std::vector<std::filesystem::path> folders = test::cases("families");
  if (test::fixtures() == small_set) return folders;
  for (const auto& entry : std::filesystem::directory_iterator(small_set / "families")) folders.push_back(entry.path());
  return folders;
}

Decoder load_float32(const std::filesystem::path& path) {
  return load_decoder(open_model(path), {WeightType::float32, at::kCPU, false});
}

// tokens [B, T] -> logits [B, T, V].
at::Tensor all_logits(const Decoder& decoder, const at::Tensor& tokens) {
  const at::Tensor hidden = forward(decoder, uniform_layout(tokens), nullptr);
  return logits(decoder, hidden).view({tokens.size(0), tokens.size(1), -1});
}

// The last of `count` tokens in each sequence of a batch [B, T] that follows `cached` tokens, each with slots of its
// own. -> next ids [B, 1].
at::Tensor next_with_cache(const Decoder& decoder, KvCache& cache, const at::Tensor& tokens, int64_t cached) {
  const int64_t batch = tokens.size(0), count = tokens.size(1), room = cache.slots() / batch;
  BatchLayout layout = uniform_layout(tokens);
  layout.positions = layout.positions + cached;
  for (int64_t i = 0; i < batch; ++i) layout.sequences[static_cast<size_t>(i)] = {i * count, count, cached, i * room};
  const at::Tensor hidden = forward(decoder, layout, &cache);
  return at::argmax(logits(decoder, hidden).view({batch, count, -1}).select(1, -1), -1, true);
}

at::Tensor greedy_with_cache(const Decoder& decoder, const at::Tensor& prompt, int64_t count) {
  const DecoderConfig& config = decoder.config;
  KvCache cache = make_kv_cache(config.layers, prompt.size(0) * (prompt.size(1) + count), config.groups,
                                config.head_width, at::kFloat);
  at::Tensor answer = next_with_cache(decoder, cache, prompt, 0);
  while (answer.size(1) < count) {
    const at::Tensor last = answer.narrow(1, answer.size(1) - 1, 1);
    const at::Tensor next = next_with_cache(decoder, cache, last, prompt.size(1) + answer.size(1) - 1);
    answer = at::cat({answer, next}, 1);
  }
  return answer;
}

at::Tensor greedy_without_cache(const Decoder& decoder, const at::Tensor& prompt, int64_t count) {
  at::Tensor ids = prompt;
  for (int64_t i = 0; i < count; ++i)
    ids = at::cat({ids, at::argmax(all_logits(decoder, ids).select(1, -1), -1, true)}, 1);
  return ids.narrow(1, prompt.size(1), count);
}

class Families : public testing::TestWithParam<std::filesystem::path> {
 protected:
  const at::NoGradGuard no_grad_;
};

TEST_P(Families, LogitsAgreeWithTheReferenceAtBothLengths) {
  const Decoder decoder = load_float32(GetParam());
  const Golden golden(GetParam() / "case.safetensors");
  const at::Tensor tokens = golden.at("input_ids");
  EXPECT_LE(distance(all_logits(decoder, tokens), golden.at("logits")), float_tolerance);
  EXPECT_LE(distance(all_logits(decoder, tokens.narrow(1, 0, 40)), golden.at("logits_first_40")), float_tolerance);
}

TEST_P(Families, GreedyIdsAreTheReferencesWithAndWithoutACache) {
  const Decoder decoder = load_float32(GetParam());
  const Golden golden(GetParam() / "case.safetensors");
  const at::Tensor prompt = golden.at("greedy_prompt"), expected = golden.at("greedy");
  EXPECT_TRUE(greedy_with_cache(decoder, prompt, expected.size(1)).equal(expected));
  EXPECT_TRUE(greedy_without_cache(decoder, prompt, expected.size(1)).equal(expected));
}

TEST_P(Families, ABatchGivesWhatItsSequencesGiveOneByOne) {
  const Decoder decoder = load_float32(GetParam());
  const at::Tensor tokens = Golden(GetParam() / "case.safetensors").at("input_ids");
  const at::Tensor batched = all_logits(decoder, tokens);
  for (int64_t i = 0; i < tokens.size(0); ++i)
    EXPECT_LE(distance(all_logits(decoder, tokens.narrow(0, i, 1)), batched.narrow(0, i, 1)), 2e-6) << i;
}

// A mistake in what a family is about must show: without it, the logits are others.
TEST_P(Families, NothingThatTheConfigStatesIsWithoutEffect) {
  const Decoder decoder = load_float32(GetParam());
  const Golden golden(GetParam() / "case.safetensors");
  const auto moved = [&](const char* what, const auto& change) {
    Decoder other = decoder;
    if (!change(other.config)) return;
    EXPECT_GT(distance(all_logits(other, golden.at("input_ids")), golden.at("logits")), float_tolerance) << what;
  };
  moved("windows", [](DecoderConfig& config) {
    const bool had = std::count(config.windows.begin(), config.windows.end(), 0) != config.layers;
    std::fill(config.windows.begin(), config.windows.end(), 0);
    return had;
  });
  moved("theta", [](DecoderConfig& config) { return !config.learned_positions && (config.rope.theta *= 1.5) > 0; });
  moved("rope scaling", [](DecoderConfig& config) {
    return std::exchange(config.rope.scaling, RopeScaling::none) != RopeScaling::none;
  });
  moved("local rope", [](DecoderConfig& config) {
    const bool had = config.local_rope.has_value();
    config.local_rope.reset();
    return had;
  });
  moved("attention scale", [](DecoderConfig& config) { return (config.attention_scale *= 1.1) > 0; });
  moved("embedding scale", [](DecoderConfig& config) { return std::exchange(config.embedding_scale, 1) != 1; });
  moved("parallel residual", [](DecoderConfig& config) {
    return std::exchange(config.residual, ResidualOrder::norm_first) == ResidualOrder::parallel;
  });
}

std::string case_name(const testing::TestParamInfo<std::filesystem::path>& info) {
  std::string name = info.param.filename().string() + (*info.param.begin() == "tests" ? "_small" : "");
  for (char& letter : name)
    if (!std::isalnum(static_cast<unsigned char>(letter))) letter = '_';
  return name;
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Families);
INSTANTIATE_TEST_SUITE_P(All, Families, testing::ValuesIn(family_folders()), case_name);

// ---- GGUF
// ------------------------------------------------------------------------------------------------------------

std::vector<std::filesystem::path> gguf_files() {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(small_set / "gguf"))
    if (entry.path().extension() == ".gguf") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

class GgufArchitectures : public Families {};

TEST_P(GgufArchitectures, LogitsAgreeWithTheReferenceOfTheSameWeights) {
  const Decoder decoder = load_float32(GetParam());
  const Golden golden(std::filesystem::path(GetParam()).replace_extension(".safetensors"));
  EXPECT_LE(distance(all_logits(decoder, golden.at("input_ids")), golden.at("logits")), float_tolerance);
}

// A few rows at a time: that many are multiplied in float32 (ops/packed_weight.h).
TEST_P(GgufArchitectures, PackedWeightsGiveTheSame) {
  const Decoder decoder = load_decoder(open_model(GetParam()), {});
  EXPECT_TRUE(decoder.layers[0].feed_forward.down.packed);
  const Golden golden(std::filesystem::path(GetParam()).replace_extension(".safetensors"));
  const auto first = [](const at::Tensor& tensor) { return tensor.narrow(1, 0, 12); };
  EXPECT_LE(distance(all_logits(decoder, first(golden.at("input_ids"))), first(golden.at("logits"))), float_tolerance);
}

INSTANTIATE_TEST_SUITE_P(All, GgufArchitectures, testing::ValuesIn(gguf_files()), case_name);

}  // namespace
}  // namespace cepe::model
