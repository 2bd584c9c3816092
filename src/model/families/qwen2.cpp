// Qwen 2 and 2.5 (transformers' Qwen2ForCausalLM): Llama with biases on q, k and v, whatever the file says.
#include "model/families/families.h"

namespace cepe::model {
namespace {

DecoderConfig read_qwen2(const base::Json& config, const std::string& where) {
  DecoderConfig decoder = read_common(config, where);
  decoder.query_key_value_bias = true;
  decoder.windows = read_qwen_windows(config, decoder.layers, where);
  return decoder;
}

}  // namespace

std::vector<int64_t> read_qwen_windows(const base::Json& config, int64_t layers, const std::string& where) {
  std::vector<int64_t> windows(static_cast<size_t>(layers), 0);
  if (!base::json_boolean(config, "use_sliding_window", where, false)) return windows;
  windows = read_windows(with_defaults(config, {{"sliding_window", 4096}}), layers, where);
  if (base::json_has(config, "layer_types")) return windows;
  const int64_t first = base::json_integer(config, "max_window_layers", where, 28);
  for (int64_t i = 0; i < layers && i < first; ++i) windows[static_cast<size_t>(i)] = 0;
  return windows;
}

const Family qwen2_family = {"qwen2", "qwen2", read_qwen2, llama_names, gguf_common_names};

}  // namespace cepe::model
