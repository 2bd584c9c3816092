// Mistral (transformers' MistralForCausalLM): Llama with a sliding window in every layer; null = none.
#include "model/families/families.h"

namespace cepe::model {
namespace {

DecoderConfig read_mistral(const base::Json& config, const std::string& where) {
  DecoderConfig decoder = read_common(config, where);
  decoder.windows = read_windows(with_defaults(config, {{"sliding_window", 4096}}), decoder.layers, where);
  return decoder;
}

}  // namespace

const Family mistral_family = {"mistral", "llama", read_mistral, llama_names, gguf_llama_names};

}  // namespace cepe::model
