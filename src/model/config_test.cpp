// config.json of both generations, GGUF metadata, weight names: what is read, and what is refused and how.
#include "model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/error.h"
#include "model/gguf_config.h"
#include "model/weight_names.h"

namespace cepe::model {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;

Json small(const char* model_type) {
  return {{"model_type", model_type}, {"vocab_size", 64},
          {"hidden_size", 32},        {"num_hidden_layers", 4},
          {"num_attention_heads", 4}, {"num_key_value_heads", 2},
          {"intermediate_size", 48},  {"max_position_embeddings", 128}};
}

Json with(Json config, const Json& changes) {
  config.update(changes);
  return config;
}

DecoderConfig read(const Json& config) { return read_decoder_config(config, "config.json"); }

// The error that reading gives, as "code: message"; empty where it is accepted.
template <class Read>
std::string refusal(const Read& action) {
  try {
    action();
  } catch (const Error& error) {
    const char* code = error.code() == ErrorCode::corrupt       ? "corrupt: "
                       : error.code() == ErrorCode::unsupported ? "unsupported: "
                                                                : "other: ";
    return code + std::string(error.what());
  }
  return "";
}
std::string refusal_of(const Json& config) {
  return refusal([&] { read(config); });
}

TEST(Config, UnknownFamiliesAreRefusedByNameWithTheListOfTheKnown) {
  const std::string message = refusal_of(small("mamba"));
  EXPECT_THAT(message, HasSubstr("unsupported: config.json"));
  EXPECT_THAT(message, HasSubstr("'mamba'"));
  for (const char* known : {"llama", "mistral", "qwen2", "qwen3", "gemma3_text", "phi3", "olmo2", "gpt2", "gpt_neox"})
    EXPECT_THAT(message, HasSubstr(known));
}

TEST(Config, BothGenerationsOfRopeReadTheSame) {
  const Json old_fields = {
      {"rope_theta", 5e5},
      {"rope_scaling", {{"type", "yarn"}, {"factor", 8.0}, {"original_max_position_embeddings", 64}}}};
  const Json new_fields = {
      {"rope_parameters",
       {{"rope_type", "yarn"}, {"rope_theta", 5e5}, {"factor", 8.0}, {"original_max_position_embeddings", 64}}}};
  for (const Json& fields : {old_fields, new_fields}) {
    const RopeConfig rope = read(with(small("llama"), fields)).rope;
    EXPECT_EQ(rope.theta, 5e5);
    EXPECT_EQ(rope.scaling, RopeScaling::yarn);
    EXPECT_EQ(rope.factor, 8);
    EXPECT_EQ(rope.original_positions, 64);
    EXPECT_EQ(rope.width, 8);
  }
}

TEST(Config, DynamicScalingStartsBeyondTheModelsOwnPositionsAndReachesItsFactorAsFar) {
  Json scaling = {{"rope_scaling", {{"type", "dynamic"}, {"factor", 2.0}, {"original_max_position_embeddings", 7}}}};
  EXPECT_EQ(read(with(small("llama"), scaling)).rope.original_positions, 128);
  EXPECT_EQ(read(with(small("llama"), scaling)).max_positions, 256);
  scaling["rope_scaling"]["factor"] = 1e300;
  EXPECT_EQ(read(with(small("llama"), scaling)).max_positions, int64_t{1} << 40);
}

TEST(Config, YarnsAmplitudeIsTheRatioOfTheTwoThatAreStated) {
  const Json scaling = {
      {"rope_scaling", {{"type", "yarn"}, {"factor", 4.0}, {"mscale", 1.0}, {"mscale_all_dim", 0.5}}}};
  const double logarithm = 0.1 * std::log(4.0);
  EXPECT_DOUBLE_EQ(read(with(small("llama"), scaling)).rope.attention_factor, (logarithm + 1) / (0.5 * logarithm + 1));
}

TEST(Config, LongropeIsRefusedByName) {
  const Json old_fields = {{"rope_scaling", {{"type", "longrope"}, {"short_factor", {1.0}}, {"long_factor", {1.0}}}}};
  EXPECT_THAT(refusal_of(with(small("phi3"), old_fields)), HasSubstr("unsupported: config.json: rope type 'longrope'"));
  const Json new_fields = {{"rope_parameters", {{"rope_type", "longrope"}, {"rope_theta", 1e4}}}};
  EXPECT_THAT(refusal_of(with(small("phi3"), new_fields)), HasSubstr("'longrope'"));
}

TEST(Config, PhisTopLevelOriginalPositionsWinOverTheRopes) {
  const Json fields = {{"original_max_position_embeddings", 32}, {"rope_scaling", {{"type", "yarn"}, {"factor", 4.0}}}};
  EXPECT_EQ(read(with(small("phi3"), fields)).rope.original_positions, 32);
}

TEST(Config, EndTokensBeyondTheVocabularyAreDropped) {
  EXPECT_THAT(read(with(small("phi3"), {{"eos_token_id", {3, 32000, 5, -1}}})).eos, ElementsAre(3, 5));
  EXPECT_FALSE(read(with(small("llama"), {{"bos_token_id", 64}})).bos.has_value());
}

TEST(Config, AMistralHasAWindowInEveryLayerAndNullMeansNone) {
  EXPECT_THAT(read(with(small("mistral"), {{"sliding_window", 24}})).windows, ElementsAre(24, 24, 24, 24));
  EXPECT_THAT(read(with(small("mistral"), {{"sliding_window", nullptr}})).windows, Each(0));
}

TEST(Config, AQwenHasWindowsOnlyWhereItSaysThatItUsesThem) {
  const Json fields = {{"sliding_window", 16}, {"max_window_layers", 3}};
  for (const char* family : {"qwen2", "qwen3"}) {
    const Json config = with(small(family), fields);
    EXPECT_THAT(read(config).windows, Each(0));
    EXPECT_THAT(read(with(config, {{"use_sliding_window", true}})).windows, ElementsAre(0, 0, 0, 16));
    const Json types = {"full_attention", "sliding_attention", "full_attention", "full_attention"};
    EXPECT_THAT(read(with(config, {{"use_sliding_window", true}, {"layer_types", types}})).windows,
                ElementsAre(0, 16, 0, 0));
    EXPECT_THAT(read(with(config, {{"layer_types", types}})).windows, Each(0));
  }
  EXPECT_TRUE(read(small("qwen2")).query_key_value_bias);
  EXPECT_FALSE(read(small("qwen2")).output_bias);
  EXPECT_FALSE(read(small("qwen3")).query_key_value_bias);
}

TEST(Config, GemmasLayersWithAWindowHaveARopeOfTheirOwnWithoutScaling) {
  const Json common = {{"head_dim", 8}, {"sliding_window", 16}, {"query_pre_attn_scalar", 4}};
  const Json old_fields = {{"rope_theta", 1e6},
                           {"rope_local_base_freq", 1e4},
                           {"sliding_window_pattern", 2},
                           {"rope_scaling", {{"rope_type", "linear"}, {"factor", 8.0}}}};
  const Json new_fields = {
      {"layer_types", {"sliding_attention", "full_attention", "sliding_attention", "full_attention"}},
      {"rope_parameters",
       {{"full_attention", {{"rope_type", "linear"}, {"rope_theta", 1e6}, {"factor", 8.0}}},
        {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 1e4}}}}}};
  for (const Json& fields : {old_fields, new_fields}) {
    const DecoderConfig config = read(with(with(small("gemma3_text"), common), fields));
    EXPECT_THAT(config.windows, ElementsAre(16, 0, 16, 0));
    EXPECT_EQ(config.rope.theta, 1e6);
    EXPECT_EQ(config.rope.scaling, RopeScaling::linear);
    ASSERT_TRUE(config.local_rope.has_value());
    EXPECT_EQ(config.local_rope->theta, 1e4);
    EXPECT_EQ(config.local_rope->scaling, RopeScaling::none);
    EXPECT_DOUBLE_EQ(config.attention_scale, 0.5);
    EXPECT_DOUBLE_EQ(config.embedding_scale, std::sqrt(32.0));
    EXPECT_EQ(config.activation, ops::Activation::gelu_tanh);
    EXPECT_TRUE(config.tied);
  }
}

TEST(Config, GemmasCapInsideTheAttentionIsRefusedAndTheFinalOneIsRead) {
  EXPECT_THAT(refusal_of(with(small("gemma3_text"), {{"attn_logit_softcapping", 50.0}})),
              HasSubstr("unsupported: config.json: 'attn_logit_softcapping'"));
  EXPECT_EQ(read(with(small("gemma3_text"), {{"final_logit_softcapping", 30.0}})).logit_cap, 30);
}

TEST(Config, ANestedGemmaStatesOnlyWhatDiffersFromTheDefaults) {
  const Json config = {{"model_type", "gemma3"},
                       {"text_config",
                        {{"hidden_size", 2560},
                         {"intermediate_size", 10240},
                         {"model_type", "gemma3_text"},
                         {"num_hidden_layers", 34},
                         {"rope_scaling", {{"factor", 8.0}, {"rope_type", "linear"}}},
                         {"sliding_window", 1024}}},
                       {"eos_token_id", {1, 106}},
                       {"vision_config", {{"hidden_size", 1152}}}};
  const DecoderConfig decoder = read(config);
  EXPECT_EQ(decoder.vocabulary, 262208);
  EXPECT_EQ(decoder.heads, 8);
  EXPECT_EQ(decoder.groups, 4);
  EXPECT_EQ(decoder.head_width, 256);
  EXPECT_EQ(decoder.windows[4], 1024);
  EXPECT_EQ(decoder.windows[5], 0);
  EXPECT_EQ(decoder.rope.theta, 1e6);
  EXPECT_THAT(decoder.eos, ElementsAre(1, 106));
  EXPECT_THAT(refusal_of({{"model_type", "gemma3"}, {"text_config", 3}}), HasSubstr("'text_config'"));
}

TEST(Config, Gpt2ReadsItsOwnFieldNames) {
  const Json config = {{"model_type", "gpt2"}, {"vocab_size", 64},  {"n_embd", 32},       {"n_layer", 2},
                       {"n_head", 4},          {"n_positions", 96}, {"n_inner", nullptr}, {"layer_norm_epsilon", 1e-4}};
  const DecoderConfig decoder = read(config);
  EXPECT_EQ(decoder.width, 32);
  EXPECT_EQ(decoder.layers, 2);
  EXPECT_EQ(decoder.groups, 4);
  EXPECT_EQ(decoder.feed_forward, 128);
  EXPECT_EQ(decoder.max_positions, 96);
  EXPECT_EQ(decoder.norm_eps, 1e-4);
  EXPECT_TRUE(decoder.tied);
  EXPECT_TRUE(decoder.learned_positions);
  EXPECT_THAT(refusal_of(with(config, {{"scale_attn_by_inverse_layer_idx", true}})),
              HasSubstr("unsupported: config.json: 'scale_attn_by_inverse_layer_idx'"));
}

TEST(Config, NeoxRotatesAQuarterUnlessItSaysOtherwise) {
  const Json config = with(small("gpt_neox"), {{"num_attention_heads", 1}, {"num_key_value_heads", nullptr}});
  EXPECT_EQ(read(config).rope.width, 8);
  EXPECT_EQ(read(with(config, {{"rotary_pct", 0.5}, {"rotary_emb_base", 500}})).rope.width, 16);
  EXPECT_EQ(read(with(config, {{"rotary_emb_base", 500}})).rope.theta, 500);
  const Json rope = {{"rope_parameters", {{"partial_rotary_factor", 1.0}, {"rope_type", "default"}}}};
  EXPECT_EQ(read(with(config, rope)).rope.width, 32);
  EXPECT_EQ(read(config).residual, ResidualOrder::parallel);
  EXPECT_EQ(read(with(config, {{"use_parallel_residual", false}})).residual, ResidualOrder::norm_first);
}

TEST(Config, HostileValuesAreRefusedWithTheFieldTheyStandIn) {
  constexpr int64_t huge = std::numeric_limits<int64_t>::max();
  const Json changes = {{"vocab_size", huge},
                        {"hidden_size", -1},
                        {"num_hidden_layers", 1000000},
                        {"num_attention_heads", 0},
                        {"num_key_value_heads", 3},
                        {"intermediate_size", 1.5},
                        {"max_position_embeddings", "many"},
                        {"head_dim", huge},
                        {"rms_norm_eps", -1.0},
                        {"rope_theta", 0},
                        {"partial_rotary_factor", 2.0},
                        {"tie_word_embeddings", 1},
                        {"hidden_act", "tanhexp"},
                        {"eos_token_id", "end"},
                        {"rope_scaling", {{"type", "linear"}, {"factor", 0}}}};
  for (const auto& [field, value] : changes.items())
    EXPECT_NE(refusal_of(with(small("llama"), {{field, value}})), "") << field;
  const std::string refusal = refusal_of(with(small("llama"), {{"hidden_act", "tanhexp"}}));
  EXPECT_NE(refusal.find(": field 'hidden_act': activation 'tanhexp'"), std::string::npos) << refusal;
  EXPECT_NE(refusal_of(with(small("mistral"), {{"sliding_window", -5}})), "");
  EXPECT_NE(refusal_of(with(small("mistral"), {{"sliding_window", 5}, {"layer_types", {"full_attention"}}})), "");
  EXPECT_NE(refusal_of(with(small("gemma3_text"), {{"query_pre_attn_scalar", -4}})), "");
  EXPECT_NE(refusal_of({{"model_type", "gpt2"}, {"vocab_size", 64}, {"n_embd", huge}, {"n_layer", 2}, {"n_head", 4}}),
            "");
  EXPECT_NE(refusal_of(Json::array()), "");
}

// ---- GGUF
// ------------------------------------------------------------------------------------------------------------

Json metadata(const std::string& architecture) {
  const Json fields = {{"embedding_length", 32},    {"block_count", 2},         {"attention.head_count", 4},
                       {"feed_forward_length", 48}, {"context_length", 128},    {"attention.head_count_kv", 2},
                       {"rope.freq_base", 5e5},     {"rope.dimension_count", 8}};
  Json all = {{"general.architecture", architecture}, {"tokenizer.ggml.tokens", {"a", "b", "c"}}};
  const std::string prefix = architecture + ".";
  for (const auto& [name, value] : fields.items()) all[prefix + name] = value;
  return all;
}

DecoderConfig read_gguf(const Json& fields) { return read(gguf_to_config(fields, "x.gguf")); }

TEST(GgufConfig, EveryArchitectureReadsToItsFamily) {
  for (const auto& [architecture, family] : {std::pair{"llama", "llama"},
                                             {"qwen2", "qwen2"},
                                             {"qwen3", "qwen3"},
                                             {"gemma3", "gemma3_text"},
                                             {"phi3", "phi3"},
                                             {"gpt2", "gpt2"},
                                             {"olmo2", "olmo2"}}) {
    const DecoderConfig config = read_gguf(metadata(architecture));
    EXPECT_EQ(config.family, family);
    EXPECT_EQ(config.vocabulary, 3) << architecture;
    EXPECT_EQ(config.groups, 2) << architecture;
    EXPECT_EQ(config.head_width, 8) << architecture;
  }
  EXPECT_EQ(read_gguf(metadata("gptneox")).family, "gpt_neox");
  const std::string message = refusal([] { gguf_to_config(metadata("rwkv6"), "x.gguf"); });
  EXPECT_THAT(message, HasSubstr("unsupported: x.gguf: GGUF architecture 'rwkv6'"));
  EXPECT_THAT(message, HasSubstr("olmo2"));
}

TEST(GgufConfig, TheRotatedChannelsAreTheCountThatIsStated) {
  for (int64_t width = 2; width <= 256; width += 2) {
    for (int64_t count = 2; count <= width; count += 2) {
      const Json fields = {{"gptneox.attention.head_count", 1},
                           {"gptneox.embedding_length", width},
                           {"gptneox.rope.dimension_count", count},
                           {"gptneox.attention.head_count_kv", 1}};
      ASSERT_EQ(read_gguf(with(metadata("gptneox"), fields)).rope.width, count) << width;
    }
  }
}

TEST(GgufConfig, AHeadWithoutACountIsRotatedWhole) {
  Json fields = metadata("gptneox");
  fields.erase("gptneox.rope.dimension_count");
  EXPECT_EQ(read_gguf(fields).rope.width, 8);
}

TEST(GgufConfig, RopeScalingIsReadAndLongropeRefused) {
  const Json yarn = {{"qwen2.rope.scaling.type", "yarn"},
                     {"qwen2.rope.scaling.factor", 4.0},
                     {"qwen2.rope.scaling.original_context_length", 64}};
  const RopeConfig rope = read_gguf(with(metadata("qwen2"), yarn)).rope;
  EXPECT_EQ(rope.scaling, RopeScaling::yarn);
  EXPECT_EQ(rope.original_positions, 64);
  EXPECT_EQ(rope.theta, 5e5);
  EXPECT_THAT(refusal([] {
                gguf_to_config(with(metadata("phi3"), {{"phi3.rope.scaling.attn_factor", 1.19}}), "x");
              }),
              HasSubstr("longrope"));
}

TEST(GgufConfig, GemmasPatternScaleAndLocalThetaAreTheArchitecturesWhereNoneIsStated) {
  const Json fields = {{"gemma3.block_count", 7}, {"gemma3.attention.sliding_window", 16}};
  const DecoderConfig config = read_gguf(with(metadata("gemma3"), fields));
  EXPECT_THAT(config.windows, ElementsAre(16, 16, 16, 16, 16, 0, 16));
  EXPECT_EQ(config.local_rope->theta, 1e4);
  EXPECT_DOUBLE_EQ(config.attention_scale, 1 / std::sqrt(8.0));
  const Json largest = {
      {"gemma3.block_count", 62}, {"gemma3.attention.key_length", 4}, {"gemma3.rope.dimension_count", 4}};
  EXPECT_DOUBLE_EQ(read_gguf(with(metadata("gemma3"), largest)).attention_scale, 1 / std::sqrt(8.0));
}

TEST(GgufConfig, WhatALlamaFileMayHideIsReadOrRefused) {
  EXPECT_THAT(read_gguf(with(metadata("llama"), {{"llama.attention.sliding_window", 24}})).windows, Each(24));
  EXPECT_THAT(refusal([] {
                gguf_to_config(with(metadata("llama"), {{"llama.expert_count", 8}}), "x");
              }),
              HasSubstr("unsupported: x: GGUF architecture 'llama': a mixture of experts"));
  EXPECT_EQ(read_gguf(with(metadata("llama"), {{"llama.attention.head_count_kv", {2, 2}}})).groups, 2);
  EXPECT_THAT(refusal([] {
                gguf_to_config(with(metadata("llama"), {{"llama.attention.head_count_kv", {2, 1}}}), "x");
              }),
              HasSubstr("differs between layers"));
  EXPECT_THAT(refusal([] {
                gguf_to_config(with(metadata("llama"), {{"llama.block_count", "two"}}), "x");
              }),
              HasSubstr("corrupt: x: field 'llama.block_count'"));
}

TEST(GgufConfig, TheEndOfATurnEndsAnAnswerToo) {
  const Json fields = {{"tokenizer.ggml.eos_token_id", 1}, {"tokenizer.ggml.eot_token_id", 2}};
  EXPECT_THAT(read_gguf(with(metadata("llama"), fields)).eos, ElementsAre(1, 2));
}

// ---- Names
// -----------------------------------------------------------------------------------------------------------

TEST(WeightNames, OnlyLlamasRowsArePermutedInGguf) {
  EXPECT_TRUE(gguf_weight_names(read(small("llama"))).permuted_query_key);
  EXPECT_TRUE(gguf_weight_names(read(small("mistral"))).permuted_query_key);
  for (const char* family : {"qwen2", "qwen3", "gemma3_text", "phi3", "olmo2", "gpt_neox"})
    EXPECT_FALSE(gguf_weight_names(read(small(family))).permuted_query_key) << family;
}

TEST(WeightNames, ARootThatTheFileLacksOrHasTwiceIsFoundByTheEmbedding) {
  const DecoderConfig llama = read(small("llama"));
  EXPECT_EQ(weight_names(llama, {"model.embed_tokens.weight"}).layers[1].down, "model.layers.1.mlp.down_proj");
  EXPECT_EQ(weight_names(llama, {"embed_tokens.weight"}).layers[1].down, "layers.1.mlp.down_proj");
  EXPECT_EQ(weight_names(llama, {"embed_tokens.weight"}).lm_head, "lm_head");
  const DecoderConfig gemma = read(small("gemma3_text"));
  for (const char* root : {"language_model.model.", "model.language_model."}) {
    const DecoderNames names = weight_names(gemma, {std::string(root) + "embed_tokens.weight"});
    EXPECT_EQ(names.norm, std::string(root) + "norm");
    EXPECT_EQ(names.layers[0].query_key_value[0], std::string(root) + "layers.0.self_attn.q_proj");
  }
  EXPECT_EQ(weight_names(llama, {"unrelated.weight"}).embedding, "model.embed_tokens");
}

}  // namespace
}  // namespace cepe::model
