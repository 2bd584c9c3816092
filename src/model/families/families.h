// The families: one file each, listed in families.cpp.
#pragma once

#include <string>
#include <string_view>

#include "model/config.h"
#include "model/weight_names.h"

namespace cepe::model {

struct Family {
  std::string_view model_type;         // config.json
  std::string_view gguf_architecture;  // GGUF's general.architecture
  DecoderConfig (*read)(const base::Json& config, const std::string& where);
  DecoderNames (*names)(const DecoderConfig& config);
  DecoderNames (*gguf_names)(const DecoderConfig& config);
};

// gemma3_nested: the text model inside a config.json that also describes an image encoder.
extern const Family llama_family, mistral_family, qwen2_family, qwen3_family, gemma3_family, gemma3_nested_family,
    phi3_family, olmo2_family, gpt2_family, gpt_neox_family;

// Qwen 2 and 3: no window unless use_sliding_window, then from layer max_window_layers on, unless layer_types says.
std::vector<int64_t> read_qwen_windows(const base::Json& config, int64_t layers, const std::string& where);

// nullptr where there is none of that model_type, or of that GGUF architecture.
const Family* find_family(std::string_view model_type);
const Family* find_architecture(std::string_view gguf_architecture);
// All model types, all architectures, for messages.
std::string known_families();
std::string known_architectures();

}  // namespace cepe::model
