#include "model/weight_names.h"

#include <algorithm>

namespace cepe::model {

namespace {

// Calls change(name) for every name of a layer, absent ones too.
template <typename Change>
void change_names(LayerNames& layer, const Change& change) {
  for (std::string* name :
       {&layer.attention_norm, &layer.attention_output_norm, &layer.feed_forward_norm, &layer.feed_forward_output_norm,
        &layer.query_norm, &layer.key_norm, &layer.output, &layer.down}) {
    change(*name);
  }
  for (std::string& name : layer.query_key_value) change(name);
  for (std::string& name : layer.gate_up) change(name);
}

// The same of a whole decoder.
template <typename Change>
void change_names(DecoderNames& names, const Change& change) {
  for (std::string* name : {&names.embedding, &names.position_embedding, &names.norm, &names.lm_head}) change(*name);
  for (LayerNames& layer : names.layers) change_names(layer, change);
}

}  // namespace

std::vector<LayerNames> numbered_layers(const std::string& root, int64_t layers, const LayerNames& parts) {
  std::vector<LayerNames> numbered;
  for (int64_t layer = 0; layer < layers; ++layer) {
    const std::string prefix = root + std::to_string(layer) + ".";
    change_names(numbered.emplace_back(parts), [&](std::string& name) {
      if (!name.empty()) name.insert(0, prefix);
    });
  }
  return numbered;
}

DecoderNames llama_names(const DecoderConfig& config) {
  DecoderNames names;
  names.embedding = "model.embed_tokens";
  names.norm = "model.norm";
  names.lm_head = "lm_head";
  LayerNames parts;
  parts.attention_norm = "input_layernorm";
  parts.feed_forward_norm = "post_attention_layernorm";
  parts.query_key_value = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"};
  parts.output = "self_attn.o_proj";
  parts.gate_up = {"mlp.gate_proj", "mlp.up_proj"};
  parts.down = "mlp.down_proj";
  if (config.query_key_norm != QueryKeyNorm::none) {
    parts.query_norm = "self_attn.q_norm";
    parts.key_norm = "self_attn.k_norm";
  }
  names.layers = numbered_layers("model.layers.", config.layers, parts);
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
  LayerNames parts;
  if (before) parts.attention_norm = "attn_norm";
  if (before) parts.feed_forward_norm = "ffn_norm";
  if (after) parts.attention_output_norm = "post_attention_norm";
  if (after) parts.feed_forward_output_norm = "post_ffw_norm";
  parts.query_key_value = {"attn_q", "attn_k", "attn_v"};
  parts.output = "attn_output";
  if (config.gated) parts.gate_up.emplace_back("ffn_gate");
  parts.gate_up.emplace_back("ffn_up");
  parts.down = "ffn_down";
  if (config.query_key_norm != QueryKeyNorm::none) {
    parts.query_norm = "attn_q_norm";
    parts.key_norm = "attn_k_norm";
  }
  names.layers = numbered_layers("blk.", config.layers, parts);
  return names;
}

DecoderNames gguf_fused_names(const DecoderConfig& config) {
  DecoderNames names = gguf_common_names(config);
  for (size_t i = 0; i < names.layers.size(); ++i)
    names.layers[i].query_key_value = {"blk." + std::to_string(i) + ".attn_qkv"};
  return names;
}

DecoderNames gguf_llama_names(const DecoderConfig& config) {
  DecoderNames names = gguf_common_names(config);
  names.permuted_query_key = true;
  return names;
}

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
