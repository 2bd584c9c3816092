#include "model/config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "base/error.h"

namespace cepe::model {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;

constexpr int64_t max_width = int64_t{1} << 20;
constexpr int64_t max_vocabulary = int64_t{1} << 24;
constexpr int64_t max_layers = 4096;

void check_range(int64_t value, int64_t low, int64_t high, const char* field, const std::string& where) {
  if (value >= low && value <= high) return;
  throw Error(ErrorCode::corrupt, where + ": field '" + field + "' is " + std::to_string(value) + "; it must be from " +
                                      std::to_string(low) + " to " + std::to_string(high));
}

constexpr std::array<std::pair<const char*, RopeScaling>, 5> rope_types = {{{"default", RopeScaling::none},
                                                                            {"linear", RopeScaling::linear},
                                                                            {"dynamic", RopeScaling::dynamic},
                                                                            {"yarn", RopeScaling::yarn},
                                                                            {"llama3", RopeScaling::llama3}}};

const char* name_of(RopeScaling scaling) {
  return std::find_if(rope_types.begin(), rope_types.end(), [&](const auto& type) { return type.second == scaling; })
      ->first;
}

// The object that holds the rope's numbers, in either generation of config.json; null where there is none.
Json rope_object(const Json& config, const char* layer_type) {
  const char* field = base::json_has(config, "rope_parameters") ? "rope_parameters" : "rope_scaling";
  if (!base::json_has(config, field)) return nullptr;
  const Json& rope = config.at(field);
  if (layer_type && base::json_has(rope, layer_type)) return rope.at(layer_type);
  return rope;
}

// Dynamic scaling starts beyond max_position_embeddings; the others state the context of training, at the top level
// (Phi-3, which wins) or beside the factor.
int64_t original_positions(const Json& config, const Json& scaling, RopeScaling kind, const std::string& where) {
  const int64_t positions = base::json_integer(config, "max_position_embeddings", where, 2048);
  if (kind == RopeScaling::dynamic) return positions;
  const char* field = "original_max_position_embeddings";
  return base::json_integer(config, field, where, base::json_integer(scaling, field, where, positions));
}

// YaRN's amplitude where the file states it: attention_factor, or the ratio of two amplitudes m * 0.1 ln(factor) + 1.
// 0 = not stated.
double read_attention_factor(const Json& scaling, double factor, const std::string& where) {
  if (!base::json_boolean(scaling, "truncate", where, true))
    throw Error(ErrorCode::unsupported, where + ": the rope's field 'truncate' is false, which is not supported");
  const double above = base::json_number(scaling, "mscale", where, 0);
  const double below = base::json_number(scaling, "mscale_all_dim", where, 0);
  const double logarithm = 0.1 * std::log(factor);
  const double ratio = above > 0 && below > 0 ? (above * logarithm + 1) / (below * logarithm + 1) : 0;
  return base::json_number(scaling, "attention_factor", where, ratio);
}

}  // namespace

ops::Activation read_activation(const Json& config, const std::string& where, const std::string& otherwise) {
  const std::string name = base::json_string(config, "hidden_act", where, otherwise);
  try {
    return ops::activation_named(name);
  } catch (const Error& error) {
    throw Error(error.code(), where + ": field 'hidden_act': " + error.what());
  }
}

RopeScaling rope_scaling_named(const std::string& name, const std::string& where) {
  for (const auto& [type, scaling] : rope_types)
    if (name == type) return scaling;
  throw Error(ErrorCode::unsupported,
              where + ": rope type '" + name + "' is not supported; known are default, linear, dynamic, yarn, llama3");
}

RopeConfig read_rope(const Json& config, int64_t head_width, const std::string& where, const char* layer_type) {
  RopeConfig rope;
  const Json scaling = rope_object(config, layer_type);
  rope.theta =
      base::json_number(config, "rope_theta", where, base::json_number(config, "rotary_emb_base", where, 10000));
  rope.theta = base::json_number(scaling, "rope_theta", where, rope.theta);
  double share =
      base::json_number(config, "partial_rotary_factor", where, base::json_number(config, "rotary_pct", where, 1));
  share = base::json_number(scaling, "partial_rotary_factor", where, share);
  if (!(share > 0 && share <= 1))
    throw Error(ErrorCode::corrupt, where + ": field 'partial_rotary_factor' must be above 0 and at most 1");
  if (!(rope.theta > 0)) throw Error(ErrorCode::corrupt, where + ": field 'rope_theta' must be positive");
  rope.width = static_cast<int64_t>(static_cast<double>(head_width) * share) / 2 * 2;
  if (!scaling.is_object()) return rope;

  rope.scaling = rope_scaling_named(
      base::json_string(scaling, "rope_type", where, base::json_string(scaling, "type", where, "default")), where);
  if (rope.scaling == RopeScaling::none) return rope;
  rope.factor = base::json_number(scaling, "factor", where);
  if (!(rope.factor >= 1)) throw Error(ErrorCode::corrupt, where + ": the rope's field 'factor' must be at least 1");
  rope.original_positions = original_positions(config, scaling, rope.scaling, where);
  check_range(rope.original_positions, 1, int64_t{1} << 40, "original_max_position_embeddings", where);
  rope.low_frequency_factor = base::json_number(scaling, "low_freq_factor", where, 1);
  rope.high_frequency_factor = base::json_number(scaling, "high_freq_factor", where, 4);
  rope.beta_fast = base::json_number(scaling, "beta_fast", where, 32);
  rope.beta_slow = base::json_number(scaling, "beta_slow", where, 1);
  rope.attention_factor = read_attention_factor(scaling, rope.factor, where);
  if (rope.scaling == RopeScaling::llama3 &&
      !(rope.low_frequency_factor > 0 && rope.high_frequency_factor > rope.low_frequency_factor)) {
    throw Error(ErrorCode::corrupt,
                where + ": the rope's 'high_freq_factor' must be above 'low_freq_factor', and both above 0");
  }
  return rope;
}

void add_end_tokens(const Json& config, DecoderConfig& decoder, const std::string& where) {
  if (!base::json_has(config, "eos_token_id")) return;
  const Json& eos = config.at("eos_token_id");
  const Json list = eos.is_array() ? eos : Json::array({eos});
  for (const Json& value : list) {
    if (!value.is_number_integer())
      throw Error(ErrorCode::corrupt, where + ": field 'eos_token_id' must hold integers");
    const auto id = value.get<int64_t>();
    const bool is_new = std::find(decoder.eos.begin(), decoder.eos.end(), id) == decoder.eos.end();
    if (is_new && id >= 0 && id < decoder.vocabulary) decoder.eos.push_back(id);
  }
}

DecoderConfig read_common(const Json& config, const std::string& where) {
  DecoderConfig decoder;
  decoder.vocabulary = base::json_integer(config, "vocab_size", where);
  decoder.width = base::json_integer(config, "hidden_size", where);
  decoder.layers = base::json_integer(config, "num_hidden_layers", where);
  decoder.heads = base::json_integer(config, "num_attention_heads", where);
  decoder.groups = base::json_integer(config, "num_key_value_heads", where, decoder.heads);
  check_range(decoder.heads, 1, max_width, "num_attention_heads", where);
  check_range(decoder.layers, 1, max_layers, "num_hidden_layers", where);
  decoder.head_width = base::json_integer(config, "head_dim", where, decoder.width / decoder.heads);
  decoder.feed_forward = base::json_integer(config, "intermediate_size", where);
  decoder.max_positions = base::json_integer(config, "max_position_embeddings", where, 2048);
  check_range(decoder.head_width, 1, max_width, "head_dim", where);
  decoder.activation = read_activation(config, where, "silu");
  decoder.norm_eps = base::json_number(config, "rms_norm_eps", where, 1e-6);
  decoder.rope = read_rope(config, decoder.head_width, where);
  decoder.windows.assign(static_cast<size_t>(decoder.layers), 0);
  decoder.attention_scale = 1 / std::sqrt(static_cast<double>(decoder.head_width));
  decoder.tied = base::json_boolean(config, "tie_word_embeddings", where, false);
  if (base::json_has(config, "bos_token_id")) decoder.bos = base::json_integer(config, "bos_token_id", where);
  if (decoder.bos && (*decoder.bos < 0 || *decoder.bos >= decoder.vocabulary)) decoder.bos.reset();
  add_end_tokens(config, decoder, where);
  return decoder;
}

Json with_defaults(const Json& config, const Json& defaults) {
  Json full = config;
  for (const auto& [field, value] : defaults.items()) {
    if (!full.contains(field)) full[field] = value;
  }
  return full;
}

std::vector<int64_t> read_windows(const Json& config, int64_t layers, const std::string& where) {
  std::vector<int64_t> windows(static_cast<size_t>(layers), 0);
  const int64_t window = base::json_integer(config, "sliding_window", where, 0);
  if (window == 0) return windows;
  check_range(window, 1, int64_t{1} << 40, "sliding_window", where);
  if (base::json_has(config, "layer_types")) {
    const Json& types = config.at("layer_types");
    if (!types.is_array() || static_cast<int64_t>(types.size()) != layers) {
      throw Error(ErrorCode::corrupt, where + ": field 'layer_types' must list " + std::to_string(layers) + " layers");
    }
    for (size_t i = 0; i < types.size(); ++i) windows[i] = types[i] == "sliding_attention" ? window : 0;
    return windows;
  }
  const int64_t pattern = base::json_integer(config, "sliding_window_pattern", where,
                                             base::json_integer(config, "_sliding_window_pattern", where, 0));
  for (int64_t i = 0; i < layers; ++i)
    windows[static_cast<size_t>(i)] = pattern > 0 && (i + 1) % pattern == 0 ? 0 : window;
  return windows;
}

void validate(const DecoderConfig& config, const std::string& where) {
  check_range(config.vocabulary, 1, max_vocabulary, "vocab_size", where);
  check_range(config.width, 1, max_width, "hidden_size", where);
  check_range(config.layers, 1, max_layers, "num_hidden_layers", where);
  check_range(config.heads, 1, max_width, "num_attention_heads", where);
  check_range(config.groups, 1, config.heads, "num_key_value_heads", where);
  check_range(config.head_width, 1, max_width, "head_dim", where);
  check_range(config.feed_forward, 1, max_width, "intermediate_size", where);
  check_range(config.max_positions, 1, int64_t{1} << 40, "max_position_embeddings", where);
  if (!(config.norm_eps > 0 && config.norm_eps < 1))
    throw Error(ErrorCode::corrupt, where + ": the norms' epsilon must be above 0 and below 1");
  if (!(config.attention_scale > 0 && std::isfinite(config.attention_scale)))
    throw Error(ErrorCode::corrupt, where + ": the scale of the attention must be positive and finite");
  if (config.logit_cap < 0) throw Error(ErrorCode::corrupt, where + ": field 'final_logit_softcapping' is negative");
  if (config.heads % config.groups != 0) {
    throw Error(ErrorCode::corrupt, where + ": " + std::to_string(config.heads) + " query heads cannot share " +
                                        std::to_string(config.groups) + " key/value heads evenly");
  }
  if (!config.learned_positions && (config.rope.width < 2 || config.rope.width > config.head_width)) {
    throw Error(ErrorCode::corrupt, where + ": " + std::to_string(config.rope.width) +
                                        " rotated channels in heads of " + std::to_string(config.head_width));
  }
}

namespace {

// What read_rope reads, and the divisors that a GGUF file stated.
void write_rope(const RopeConfig& rope, int64_t head_width, Json& json) {
  json["rope_theta"] = rope.theta;
  // Half a channel more, so that reading it rounds down to the width.
  if (rope.width < head_width)
    json["partial_rotary_factor"] = (static_cast<double>(rope.width) + 0.5) / static_cast<double>(head_width);
  if (!rope.divisors.empty()) json["rope_divisors"] = rope.divisors;
  if (rope.scaling == RopeScaling::none) return;
  Json scaling = {{"rope_type", name_of(rope.scaling)},
                  {"factor", rope.factor},
                  {"original_max_position_embeddings", rope.original_positions},
                  {"low_freq_factor", rope.low_frequency_factor},
                  {"high_freq_factor", rope.high_frequency_factor},
                  {"beta_fast", rope.beta_fast},
                  {"beta_slow", rope.beta_slow}};
  if (rope.attention_factor > 0) scaling["attention_factor"] = rope.attention_factor;
  json["rope_scaling"] = std::move(scaling);
  if (rope.scaling == RopeScaling::dynamic) json["max_position_embeddings"] = rope.original_positions;
}

void read_divisors(const Json& config, RopeConfig& rope, const std::string& where) {
  if (!base::json_has(config, "rope_divisors")) return;
  const Json& list = config.at("rope_divisors");
  const auto is_number = [](const Json& value) { return value.is_number() && value.get<double>() > 0; };
  if (!list.is_array() || static_cast<int64_t>(list.size()) != rope.width / 2 ||
      !std::all_of(list.begin(), list.end(), is_number))
    throw Error(ErrorCode::corrupt,
                where + ": field 'rope_divisors' must list " + std::to_string(rope.width / 2) + " numbers above 0");
  rope.divisors = list.get<std::vector<float>>();
}

}  // namespace

EncoderConfig read_encoder_config(const Json& config, const std::string& where) {
  Json full = config;
  EncoderConfig encoder;
  encoder.shares_embeddings = base::json_string(config, "embeddings", where, "own") == "decoder";
  if (encoder.shares_embeddings && !base::json_has(config, "vocab_size")) full["vocab_size"] = 1;
  const DecoderConfig blocks = read_common(full, where);
  validate(blocks, where);
  encoder.vocabulary = encoder.shares_embeddings ? 0 : blocks.vocabulary;
  encoder.width = blocks.width;
  encoder.layers = blocks.layers;
  encoder.heads = blocks.heads;
  encoder.groups = blocks.groups;
  encoder.head_width = blocks.head_width;
  encoder.feed_forward = blocks.feed_forward;
  encoder.activation = blocks.activation;
  encoder.norm_eps = blocks.norm_eps;
  encoder.rope = blocks.rope;
  read_divisors(config, encoder.rope, where);
  return encoder;
}

Json write_encoder_config(const EncoderConfig& config) {
  Json json = {{"hidden_size", config.width},
               {"num_hidden_layers", config.layers},
               {"num_attention_heads", config.heads},
               {"num_key_value_heads", config.groups},
               {"head_dim", config.head_width},
               {"intermediate_size", config.feed_forward},
               {"hidden_act", ops::name_of(config.activation)},
               {"rms_norm_eps", config.norm_eps}};
  write_rope(config.rope, config.head_width, json);
  if (config.shares_embeddings) {
    json["embeddings"] = "decoder";
  } else {
    json["vocab_size"] = config.vocabulary;
  }
  return json;
}

}  // namespace cepe::model
