// GPT-NeoX and Pythia (transformers' GPTNeoXForCausalLM): attention and feed-forward side by side, LayerNorm, biases,
// q, k, v interleaved by head (in GGUF: in order), the first quarter of each head rotated.
#include "model/families/families.h"

namespace cepe::model {
namespace {

using base::Json;

bool states_rotated_share(const Json& config) {
  if (base::json_has(config, "rotary_pct") || base::json_has(config, "partial_rotary_factor")) return true;
  return base::json_has(config, "rope_parameters") &&
         base::json_has(config.at("rope_parameters"), "partial_rotary_factor");
}

DecoderConfig read_gpt_neox(const Json& config, const std::string& where) {
  Json full = with_defaults(config, {{"hidden_act", "gelu"}});
  full["rms_norm_eps"] = base::json_number(config, "layer_norm_eps", where, 1e-5);
  if (!states_rotated_share(config)) full["rotary_pct"] = 0.25;
  DecoderConfig decoder = read_common(full, where);
  decoder.groups = decoder.heads;
  decoder.norm = NormKind::layer;
  decoder.gated = false;
  if (base::json_boolean(config, "use_parallel_residual", where, true)) decoder.residual = ResidualOrder::parallel;
  decoder.query_key_value_bias = decoder.output_bias = base::json_boolean(config, "attention_bias", where, true);
  decoder.feed_forward_bias = true;
  return decoder;
}

DecoderNames gpt_neox_names(const DecoderConfig& config) {
  DecoderNames names;
  names.embedding = "gpt_neox.embed_in";
  names.norm = "gpt_neox.final_layer_norm";
  names.lm_head = "embed_out";
  names.interleaved_query_key_value = true;
  LayerNames parts;
  parts.attention_norm = "input_layernorm";
  parts.query_key_value = {"attention.query_key_value"};
  parts.output = "attention.dense";
  parts.feed_forward_norm = "post_attention_layernorm";
  parts.gate_up = {"mlp.dense_h_to_4h"};
  parts.down = "mlp.dense_4h_to_h";
  names.layers = numbered_layers("gpt_neox.layers.", config.layers, parts);
  return names;
}

}  // namespace

const Family gpt_neox_family = {"gpt_neox", "gptneox", read_gpt_neox, gpt_neox_names, gguf_fused_names};

}  // namespace cepe::model
