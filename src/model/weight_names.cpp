#include "model/weight_names.h"

#include <algorithm>

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

DecoderNames gguf_common_names(const DecoderConfig& config) {
  DecoderNames names;
  names.embedding = "token_embd";
  if (config.learned_positions) names.position_embedding = "position_embd";
  names.norm = "output_norm";
  names.lm_head = "output";
  const bool before = config.residual != ResidualOrder::norm_last;
  const bool after = config.residual == ResidualOrder::norm_last || config.residual == ResidualOrder::norm_both;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    LayerNames parts;
    if (before) parts.attention_norm = prefix + "attn_norm";
    if (before) parts.feed_forward_norm = prefix + "ffn_norm";
    if (after) parts.attention_output_norm = prefix + "post_attention_norm";
    if (after) parts.feed_forward_output_norm = prefix + "post_ffw_norm";
    parts.query_key_value = {prefix + "attn_q", prefix + "attn_k", prefix + "attn_v"};
    parts.output = prefix + "attn_output";
    if (config.gated) parts.gate_up.push_back(prefix + "ffn_gate");
    parts.gate_up.push_back(prefix + "ffn_up");
    parts.down = prefix + "ffn_down";
    if (config.query_key_norm != QueryKeyNorm::none) {
      parts.query_norm = prefix + "attn_q_norm";
      parts.key_norm = prefix + "attn_k_norm";
    }
    names.layers.push_back(std::move(parts));
  }
  return names;
}

DecoderNames gguf_fused_names(const DecoderConfig& config) {
  DecoderNames names = gguf_common_names(config);
  for (size_t i = 0; i < names.layers.size(); ++i)
    names.layers[i].query_key_value = {"blk." + std::to_string(i) + ".attn_qkv"};
  return names;
}

namespace {

// Calls change(name) for every name there is.
template <typename Change>
void change_names(DecoderNames& names, const Change& change) {
  for (std::string* name : {&names.embedding, &names.position_embedding, &names.norm, &names.lm_head}) change(*name);
  for (LayerNames& layer : names.layers) {
    for (std::string* name :
         {&layer.attention_norm, &layer.attention_output_norm, &layer.feed_forward_norm,
          &layer.feed_forward_output_norm, &layer.query_norm, &layer.key_norm, &layer.output, &layer.down}) {
      change(*name);
    }
    for (std::string& name : layer.query_key_value) change(name);
    for (std::string& name : layer.gate_up) change(name);
  }
}

}  // namespace

DecoderNames weight_names(const DecoderConfig& config, const std::vector<std::string>& stored) {
  DecoderNames names = weight_names(config);
  const auto is_stored = [&](const std::string& name) {
    return std::binary_search(stored.begin(), stored.end(), name + ".weight");
  };
  if (is_stored(names.embedding)) return names;
  const std::string root = names.embedding.substr(0, names.embedding.find('.') + 1);  // "model."
  const std::string rest = names.embedding.substr(root.size());
  for (const std::string& other : {std::string(), "language_model." + root, std::string("model.language_model.")}) {
    if (!is_stored(other + rest)) continue;
    change_names(names, [&](std::string& name) {
      if (name.starts_with(root)) name.replace(0, root.size(), other);
    });
    if (is_stored("language_model." + names.lm_head)) names.lm_head = "language_model." + names.lm_head;
    break;
  }
  return names;
}

}  // namespace cepe::model
