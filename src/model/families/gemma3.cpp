// Gemma 3 (transformers' Gemma3ForCausalLM, and the text model of Gemma3ForConditionalGeneration): norms before and
// after both blocks and over each head of q and k, all times 1 + w; embeddings times sqrt(C); five layers with a window
// and a rope of their own to one that sees everything.
#include <cmath>

#include "base/error.h"
#include "model/families/families.h"

namespace cepe::model {
namespace {

using base::Json;

// Published files of the larger models state only what differs from these.
const Json& defaults() {
  static const Json fields = {{"vocab_size", 262208},
                              {"hidden_size", 2304},
                              {"intermediate_size", 9216},
                              {"num_hidden_layers", 26},
                              {"num_attention_heads", 8},
                              {"num_key_value_heads", 4},
                              {"head_dim", 256},
                              {"hidden_activation", "gelu_pytorch_tanh"},
                              {"max_position_embeddings", 131072},
                              {"rms_norm_eps", 1e-6},
                              {"bos_token_id", 2},
                              {"eos_token_id", 1},
                              {"tie_word_embeddings", true},
                              {"query_pre_attn_scalar", 256},
                              {"sliding_window", 4096},
                              {"rope_theta", 1000000.0},
                              {"rope_local_base_freq", 10000.0}};
  return fields;
}

void refuse_unknown_gemma3(const Json& config, const std::string& where) {
  using base::Error;
  using base::ErrorCode;
  if (base::json_has(config, "attn_logit_softcapping"))
    throw Error(ErrorCode::unsupported, where +
                                            ": 'attn_logit_softcapping' (a soft cap inside the attention) is not "
                                            "supported; expected null");
  if (base::json_boolean(config, "use_bidirectional_attention", where, false))
    throw Error(ErrorCode::unsupported, where + ": 'use_bidirectional_attention' is not supported; expected false");
}

// A scaling applies to the full layers only; those with a window have a theta of their own and none.
RopeConfig read_local_rope(const Json& config, int64_t head_width, const std::string& where) {
  const double theta = base::json_number(config, "rope_local_base_freq", where);
  if (base::json_has(config, "rope_parameters") && base::json_has(config.at("rope_parameters"), "sliding_attention")) {
    Json local = config;
    local["rope_theta"] = theta;
    return read_rope(local, head_width, where, "sliding_attention");
  }
  return read_rope({{"rope_theta", theta}}, head_width, where);
}

DecoderConfig read_gemma3(const Json& given, const std::string& where) {
  refuse_unknown_gemma3(given, where);
  Json config = with_defaults(given, defaults());
  config["hidden_act"] = config.at("hidden_activation");
  if (!base::json_has(config, "sliding_window_pattern") && !base::json_has(config, "_sliding_window_pattern"))
    config["sliding_window_pattern"] = 6;
  DecoderConfig decoder = read_common(config, where);
  decoder.norm = NormKind::rms_unit_offset;
  decoder.residual = ResidualOrder::norm_both;
  decoder.query_key_norm = QueryKeyNorm::per_head;
  decoder.query_key_value_bias = decoder.output_bias = base::json_boolean(config, "attention_bias", where, false);
  decoder.windows = read_windows(config, decoder.layers, where);
  decoder.rope = read_rope(config, decoder.head_width, where, "full_attention");
  decoder.local_rope = read_local_rope(config, decoder.head_width, where);
  decoder.attention_scale = 1 / std::sqrt(base::json_number(config, "query_pre_attn_scalar", where));
  decoder.logit_cap = base::json_number(config, "final_logit_softcapping", where, 0);
  decoder.embedding_scale = std::sqrt(static_cast<double>(decoder.width));
  return decoder;
}

DecoderConfig read_nested_gemma3(const Json& config, const std::string& where) {
  if (!base::json_has(config, "text_config") || !config.at("text_config").is_object())
    throw base::Error(base::ErrorCode::corrupt, where + ": field 'text_config' must be an object");
  DecoderConfig decoder = read_gemma3(config.at("text_config"), where + ": text_config");
  add_end_tokens(config, decoder, where);  // the end of a turn stands outside
  return decoder;
}

DecoderNames gemma3_names(const DecoderConfig& config) {
  DecoderNames names = llama_names(config);
  for (size_t i = 0; i < names.layers.size(); ++i) {
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    names.layers[i].attention_output_norm = prefix + "post_attention_layernorm";
    names.layers[i].feed_forward_norm = prefix + "pre_feedforward_layernorm";
    names.layers[i].feed_forward_output_norm = prefix + "post_feedforward_layernorm";
  }
  return names;
}

}  // namespace

const Family gemma3_family = {"gemma3_text", "gemma3", read_gemma3, gemma3_names, gguf_common_names};
const Family gemma3_nested_family = {"gemma3", "gemma3", read_nested_gemma3, gemma3_names, gguf_common_names};

}  // namespace cepe::model
