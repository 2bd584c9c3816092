#include "model/gguf_config.h"

#include "base/error.h"

namespace cepe::model {

base::Json gguf_to_config(const base::Json& metadata, const std::string& where) {
  const std::string architecture = base::json_string(metadata, "general.architecture", where);
  if (architecture != "llama") {
    throw base::Error(base::ErrorCode::unsupported,
                      where + ": GGUF architecture '" + architecture + "' is not supported; known are llama");
  }
  const auto key = [&](const char* name) { return architecture + "." + name; };
  const int64_t heads = base::json_integer(metadata, key("attention.head_count").c_str(), where);
  base::Json config = {
      {"model_type", architecture},
      {"hidden_size", base::json_integer(metadata, key("embedding_length").c_str(), where)},
      {"num_hidden_layers", base::json_integer(metadata, key("block_count").c_str(), where)},
      {"num_attention_heads", heads},
      {"num_key_value_heads", base::json_integer(metadata, key("attention.head_count_kv").c_str(), where, heads)},
      {"intermediate_size", base::json_integer(metadata, key("feed_forward_length").c_str(), where)},
      {"max_position_embeddings", base::json_integer(metadata, key("context_length").c_str(), where, 2048)},
      {"rms_norm_eps", base::json_number(metadata, key("attention.layer_norm_rms_epsilon").c_str(), where, 1e-6)},
      {"rope_theta", base::json_number(metadata, key("rope.freq_base").c_str(), where, 10000)}};
  if (base::json_has(metadata, "tokenizer.ggml.tokens"))
    config["vocab_size"] = metadata.at("tokenizer.ggml.tokens").size();
  for (const auto& [field, name] : {std::pair{"bos_token_id", "tokenizer.ggml.bos_token_id"},
                                    std::pair{"eos_token_id", "tokenizer.ggml.eos_token_id"}}) {
    if (base::json_has(metadata, name)) config[field] = base::json_integer(metadata, name, where);
  }
  return config;
}

}  // namespace cepe::model
