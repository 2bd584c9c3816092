// OLMo 2 (transformers' Olmo2ForCausalLM): norms after the blocks instead of before, and over the whole of q and of k.
#include "model/families/families.h"

namespace cepe::model {
namespace {

DecoderConfig read_olmo2(const base::Json& config, const std::string& where) {
  DecoderConfig decoder = read_common(with_defaults(config, {{"rms_norm_eps", 1e-5}}), where);
  decoder.residual = ResidualOrder::norm_last;
  decoder.query_key_norm = QueryKeyNorm::whole;
  decoder.query_key_value_bias = decoder.output_bias = base::json_boolean(config, "attention_bias", where, false);
  return decoder;
}

DecoderNames olmo2_names(const DecoderConfig& config) {
  DecoderNames names = llama_names(config);
  for (size_t i = 0; i < names.layers.size(); ++i) {
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    names.layers[i].attention_norm.clear();
    names.layers[i].feed_forward_norm.clear();
    names.layers[i].attention_output_norm = prefix + "post_attention_layernorm";
    names.layers[i].feed_forward_output_norm = prefix + "post_feedforward_layernorm";
  }
  return names;
}

}  // namespace

const Family olmo2_family = {"olmo2", "olmo2", read_olmo2, olmo2_names, gguf_common_names};

}  // namespace cepe::model
