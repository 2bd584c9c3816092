#include "model/families/families.h"

#include <algorithm>

#include "base/error.h"

namespace cepe::model {
namespace {

const Family* const families[] = {&llama_family,  &mistral_family,       &qwen2_family, &qwen3_family,
                                  &gemma3_family, &gemma3_nested_family, &phi3_family,  &olmo2_family,
                                  &gpt2_family,   &gpt_neox_family};

}  // namespace

const Family* find_family(std::string_view model_type) {
  for (const Family* family : families) {
    if (family->model_type == model_type) return family;
  }
  return nullptr;
}

const Family* find_architecture(std::string_view gguf_architecture) {
  for (const Family* family : families) {
    if (family->gguf_architecture == gguf_architecture) return family;
  }
  return nullptr;
}

std::string known_families() {
  std::string names;
  for (const Family* family : families) names += (names.empty() ? "" : ", ") + std::string(family->model_type);
  return names;
}

std::string known_architectures() {
  std::string names;
  for (const Family* family : families) {
    if (find_architecture(family->gguf_architecture) != family) continue;  // two families share one
    names += (names.empty() ? "" : ", ") + std::string(family->gguf_architecture);
  }
  return names;
}

DecoderConfig read_decoder_config(const base::Json& config, const std::string& where) {
  const std::string type = base::json_string(config, "model_type", where);
  const Family* family = find_family(type);
  if (!family) {
    throw base::Error(base::ErrorCode::unsupported,
                      where + ": model_type '" + type + "' is not supported; known are " + known_families());
  }
  DecoderConfig decoder = family->read(config, where);
  decoder.family = type;
  validate(decoder, where);
  // Dynamic scaling starts where max_position_embeddings ends and reaches its factor times as far.
  if (decoder.rope.scaling == RopeScaling::dynamic) {
    const double reach = static_cast<double>(decoder.max_positions) * decoder.rope.factor;
    decoder.max_positions = static_cast<int64_t>(std::min(reach, 0x1p40));
  }
  return decoder;
}

DecoderNames weight_names(const DecoderConfig& config) { return find_family(config.family)->names(config); }

DecoderNames gguf_weight_names(const DecoderConfig& config) { return find_family(config.family)->gguf_names(config); }

}  // namespace cepe::model
