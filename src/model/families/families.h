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
};

extern const Family llama_family, mistral_family, qwen2_family, qwen3_family, gemma3_family, phi3_family, olmo2_family,
    gpt2_family, gpt_neox_family;

// nullptr where there is none of that model_type.
const Family* find_family(std::string_view model_type);
// All model types, for messages.
std::string known_families();

}  // namespace cepe::model
