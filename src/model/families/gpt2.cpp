// GPT-2 (transformers' GPT2LMHeadModel): learned positions, LayerNorm, biases everywhere, matrices kept as [in, out].
#include "base/error.h"
#include "model/families/families.h"

namespace cepe::model {
namespace {

using base::Json;

void refuse_unknown_gpt2(const Json& config, const std::string& where) {
  for (const char* field : {"scale_attn_by_inverse_layer_idx", "add_cross_attention"}) {
    if (base::json_boolean(config, field, where, false))
      throw base::Error(base::ErrorCode::unsupported, where + ": '" + field + "' is not supported; expected false");
  }
}

// GPT-2's own field names in the terms that read_common knows.
Json renamed(const Json& config) {
  Json full = with_defaults(config, {{"tie_word_embeddings", true}, {"layer_norm_epsilon", 1e-5}});
  for (const auto& [field, own] :
       {std::pair{"hidden_size", "n_embd"}, std::pair{"num_hidden_layers", "n_layer"},
        std::pair{"num_attention_heads", "n_head"}, std::pair{"intermediate_size", "n_inner"},
        std::pair{"max_position_embeddings", "n_positions"}, std::pair{"rms_norm_eps", "layer_norm_epsilon"}}) {
    if (base::json_has(config, own) || !full.contains(field)) full[field] = full.contains(own) ? full.at(own) : Json();
  }
  if (!base::json_has(full, "max_position_embeddings"))
    full["max_position_embeddings"] = full.contains("n_ctx") ? full.at("n_ctx") : Json(1024);
  full["hidden_act"] = full.contains("activation_function") ? full.at("activation_function") : Json("gelu_new");
  return full;
}

DecoderConfig read_gpt2(const Json& config, const std::string& where) {
  refuse_unknown_gpt2(config, where);
  Json full = renamed(config);
  if (!base::json_has(full, "intermediate_size")) {
    const int64_t width = base::json_integer(full, "hidden_size", where);
    full["intermediate_size"] = width > 0 && width < (int64_t{1} << 32) ? 4 * width : 0;
  }
  DecoderConfig decoder = read_common(full, where);
  decoder.norm = NormKind::layer;
  decoder.gated = false;
  decoder.learned_positions = true;
  decoder.query_key_value_bias = decoder.output_bias = decoder.feed_forward_bias = true;
  if (!base::json_boolean(config, "scale_attn_weights", where, true)) decoder.attention_scale = 1;
  return decoder;
}

DecoderNames gpt2_names(const DecoderConfig& config) {
  DecoderNames names;
  names.embedding = "transformer.wte";
  names.position_embedding = "transformer.wpe";
  names.norm = "transformer.ln_f";
  names.lm_head = "lm_head";
  names.transposed = true;
  LayerNames parts;
  parts.attention_norm = "ln_1";
  parts.query_key_value = {"attn.c_attn"};
  parts.output = "attn.c_proj";
  parts.feed_forward_norm = "ln_2";
  parts.gate_up = {"mlp.c_fc"};
  parts.down = "mlp.c_proj";
  names.layers = numbered_layers("transformer.h.", config.layers, parts);
  return names;
}

}  // namespace

const Family gpt2_family = {"gpt2", "gpt2", read_gpt2, gpt2_names, gguf_fused_names};

}  // namespace cepe::model
