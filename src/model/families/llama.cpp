// Llama 1, 2, 3 (transformers' LlamaForCausalLM; the published CEPE decoders).
#include "model/families/families.h"

namespace cepe::model {
namespace {

DecoderConfig read_llama(const base::Json& config, const std::string& where) {
  DecoderConfig decoder = read_common(config, where);
  decoder.query_key_value_bias = decoder.output_bias = base::json_boolean(config, "attention_bias", where, false);
  decoder.feed_forward_bias = base::json_boolean(config, "mlp_bias", where, false);
  return decoder;
}

}  // namespace

const Family llama_family = {"llama", "llama", read_llama, llama_names, gguf_llama_names};

}  // namespace cepe::model
