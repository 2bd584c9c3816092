#include "model/weight_names.h"

namespace cepe::model {

DecoderNames llama_names(const DecoderConfig& config) {
  DecoderNames names;
  names.embedding = "model.embed_tokens";
  names.norm = "model.norm";
  names.lm_head = "lm_head";
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    LayerNames parts;
    parts.attention_norm = prefix + "input_layernorm";
    parts.feed_forward_norm = prefix + "post_attention_layernorm";
    for (const char* part : {"q_proj", "k_proj", "v_proj"})
      parts.query_key_value.push_back(prefix + "self_attn." + part);
    parts.output = prefix + "self_attn.o_proj";
    parts.gate_up = {prefix + "mlp.gate_proj", prefix + "mlp.up_proj"};
    parts.down = prefix + "mlp.down_proj";
    if (config.query_key_norm != QueryKeyNorm::none) {
      parts.query_norm = prefix + "self_attn.q_norm";
      parts.key_norm = prefix + "self_attn.k_norm";
    }
    names.layers.push_back(std::move(parts));
  }
  return names;
}

DecoderNames gguf_weight_names(const DecoderConfig& config) {
  DecoderNames names;
  names.embedding = "token_embd";
  names.norm = "output_norm";
  names.lm_head = "output";
  names.permuted_query_key = config.family == "llama" || config.family == "mistral";
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    LayerNames parts;
    parts.attention_norm = prefix + "attn_norm";
    parts.feed_forward_norm = prefix + "ffn_norm";
    parts.query_key_value = {prefix + "attn_q", prefix + "attn_k", prefix + "attn_v"};
    parts.output = prefix + "attn_output";
    parts.gate_up = {prefix + "ffn_gate", prefix + "ffn_up"};
    parts.down = prefix + "ffn_down";
    if (config.query_key_norm != QueryKeyNorm::none) {
      parts.query_norm = prefix + "attn_q_norm";
      parts.key_norm = prefix + "attn_k_norm";
    }
    names.layers.push_back(std::move(parts));
  }
  return names;
}

}  // namespace cepe::model
