// Phi-3 (transformers' Phi3ForCausalLM): Llama with q, k, v in one matrix and gate, up in another.
#include "model/families/families.h"

namespace cepe::model {
namespace {

DecoderConfig read_phi3(const base::Json& config, const std::string& where) {
  const base::Json full = with_defaults(
      config, {{"rms_norm_eps", 1e-5}, {"max_position_embeddings", 4096}, {"original_max_position_embeddings", 4096}});
  DecoderConfig decoder = read_common(full, where);
  decoder.windows = read_windows(full, decoder.layers, where);
  return decoder;
}

DecoderNames phi3_names(const DecoderConfig& config) {
  DecoderNames names = llama_names(config);
  for (size_t i = 0; i < names.layers.size(); ++i) {
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    names.layers[i].query_key_value = {prefix + "self_attn.qkv_proj"};
    names.layers[i].gate_up = {prefix + "mlp.gate_up_proj"};
  }
  return names;
}

DecoderNames gguf_phi3_names(const DecoderConfig& config) {
  DecoderNames names = gguf_fused_names(config);
  for (size_t i = 0; i < names.layers.size(); ++i)
    names.layers[i].gate_up = {"blk." + std::to_string(i) + ".ffn_up"};  // [gate; up]
  return names;
}

}  // namespace

const Family phi3_family = {"phi3", "phi3", read_phi3, phi3_names, gguf_phi3_names};

}  // namespace cepe::model
