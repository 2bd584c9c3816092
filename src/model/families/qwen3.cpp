// Qwen 3 (transformers' Qwen3ForCausalLM): Llama with an RMSNorm over each head of q and k.
#include "model/families/families.h"

namespace cepe::model {
namespace {

DecoderConfig read_qwen3(const base::Json& config, const std::string& where) {
  DecoderConfig decoder = read_common(with_defaults(config, {{"head_dim", 128}}), where);
  decoder.query_key_norm = QueryKeyNorm::per_head;
  decoder.query_key_value_bias = decoder.output_bias = base::json_boolean(config, "attention_bias", where, false);
  decoder.windows = read_qwen_windows(config, decoder.layers, where);
  return decoder;
}

}  // namespace

const Family qwen3_family = {"qwen3", "qwen3", read_qwen3, llama_names, gguf_common_names};

}  // namespace cepe::model
