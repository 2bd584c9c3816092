#include "model/gguf_config.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "model/families/families.h"

namespace cepe::model {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;

// The fields of one architecture: "attention.head_count" stands under "llama.attention.head_count".
struct Fields {
  const Json& metadata;
  std::string architecture;
  const std::string& where;

  std::string key(const char* name) const { return architecture + "." + name; }
  bool has(const char* name) const { return base::json_has(metadata, key(name).c_str()); }
  int64_t integer(const char* name) const { return base::json_integer(shared(name), key(name).c_str(), where); }
  double number(const char* name) const { return base::json_number(metadata, key(name).c_str(), where); }
  std::string text(const char* name) const { return base::json_string(metadata, key(name).c_str(), where); }
  bool boolean(const char* name, bool otherwise) const {
    return base::json_boolean(metadata, key(name).c_str(), where, otherwise);
  }
  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(ErrorCode::unsupported, where + ": GGUF architecture '" + architecture + "': " + what);
  }

 private:
  // Some files state a number for each layer; one that all layers share is as good as a single one.
  Json shared(const char* name) const {
    if (!has(name)) return Json::object();
    const Json& value = metadata.at(key(name));
    if (!value.is_array()) return {{key(name), value}};
    const bool same = std::all_of(value.begin(), value.end(), [&](const Json& each) { return each == value.front(); });
    if (value.empty() || !same) refuse("field '" + key(name) + "' differs between layers, which is not supported");
    return {{key(name), value.front()}};
  }
};

const Family& family_of(const std::string& architecture, const std::string& where) {
  if (const Family* family = find_architecture(architecture)) return *family;
  throw Error(ErrorCode::unsupported, where + ": GGUF architecture '" + architecture +
                                          "' is not supported; known are " + known_architectures());
}

void read_sizes(const Fields& fields, Json& config) {
  const int64_t width = fields.integer("embedding_length"), heads = fields.integer("attention.head_count");
  config["hidden_size"] = width;
  config["num_hidden_layers"] = fields.integer("block_count");
  config["num_attention_heads"] = heads;
  config["num_key_value_heads"] =
      fields.has("attention.head_count_kv") ? fields.integer("attention.head_count_kv") : heads;
  config["intermediate_size"] = fields.integer("feed_forward_length");
  config["max_position_embeddings"] = fields.has("context_length") ? fields.integer("context_length") : 2048;
  int64_t head_width = heads > 0 ? width / heads : 0;
  if (fields.has("attention.key_length")) head_width = fields.integer("attention.key_length");
  if (fields.has("attention.value_length") && fields.integer("attention.value_length") != head_width)
    fields.refuse("keys and values of different widths are not supported");
  config["head_dim"] = head_width;
}

void read_vocabulary(const Fields& fields, Json& config) {
  if (base::json_has(fields.metadata, "tokenizer.ggml.tokens")) {
    config["vocab_size"] = fields.metadata.at("tokenizer.ggml.tokens").size();
  } else if (fields.has("vocab_size")) {
    config["vocab_size"] = fields.integer("vocab_size");
  }
  if (const char* bos = "tokenizer.ggml.bos_token_id"; base::json_has(fields.metadata, bos))
    config["bos_token_id"] = base::json_integer(fields.metadata, bos, fields.where);
  // The end of a turn ends an answer as well as the end of the text does.
  Json ends = Json::array();
  for (const char* name : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
    if (!base::json_has(fields.metadata, name)) continue;
    const int64_t id = base::json_integer(fields.metadata, name, fields.where);
    if (std::find(ends.begin(), ends.end(), Json(id)) == ends.end()) ends.push_back(id);
  }
  if (!ends.empty()) config["eos_token_id"] = ends;
}

void read_norms(const Fields& fields, Json& config) {
  if (fields.has("attention.layer_norm_rms_epsilon"))
    config["rms_norm_eps"] = fields.number("attention.layer_norm_rms_epsilon");
  if (fields.has("attention.layer_norm_epsilon"))
    config["layer_norm_epsilon"] = config["layer_norm_eps"] = fields.number("attention.layer_norm_epsilon");
}

Json rope_scaling(const Fields& fields, const std::string& type) {
  Json scaling = {{"rope_type", type}, {"factor", fields.number("rope.scaling.factor")}};
  if (fields.has("rope.scaling.original_context_length"))
    scaling["original_max_position_embeddings"] = fields.integer("rope.scaling.original_context_length");
  if (fields.has("rope.scaling.yarn_beta_fast")) scaling["beta_fast"] = fields.number("rope.scaling.yarn_beta_fast");
  if (fields.has("rope.scaling.yarn_beta_slow")) scaling["beta_slow"] = fields.number("rope.scaling.yarn_beta_slow");
  // GGUF states a multiple of YaRN's own amplitude, config.json the whole.
  for (const char* name : {"rope.scaling.attn_factor", "rope.scaling.yarn_attn_factor"}) {
    if (fields.has(name))
      scaling["attention_factor"] = fields.number(name) * (0.1 * std::log(scaling["factor"].get<double>()) + 1);
  }
  return scaling;
}

// The rotated channels as a share of the head; all of them where the file does not say. A quarter of a channel more, so
// that rounding down gives the count back whatever the division loses.
double rotated_share(const Fields& fields, int64_t head_width) {
  if (!fields.has("rope.dimension_count") || head_width < 1) return 1;
  const int64_t count = fields.integer("rope.dimension_count");
  return count == head_width ? 1 : (static_cast<double>(count) + 0.25) / static_cast<double>(head_width);
}

void read_rope_fields(const Fields& fields, Json& config) {
  if (fields.has("rope.freq_base")) config["rope_theta"] = fields.number("rope.freq_base");
  if (fields.has("rope.freq_base_swa")) config["rope_local_base_freq"] = fields.number("rope.freq_base_swa");
  config["partial_rotary_factor"] = rotated_share(fields, config.at("head_dim").get<int64_t>());
  const std::string type = fields.has("rope.scaling.type") ? fields.text("rope.scaling.type") : "none";
  if (type != "none") {
    config["rope_scaling"] = rope_scaling(fields, type);
  } else if (fields.has("rope.scaling.attn_factor")) {
    fields.refuse("rope type 'longrope' (rope.scaling.attn_factor) is not supported");
  }
}

// Five layers with a window to one without, unless the file says otherwise. The model of 62 layers alone divides the
// attention by sqrt(C / H) instead of sqrt(D); no file states it.
void read_gemma3(const Fields& fields, Json& config) {
  const bool largest = config.at("num_hidden_layers") == 62 && config.at("num_attention_heads").get<int64_t>() > 0;
  config["query_pre_attn_scalar"] =
      largest ? config.at("hidden_size").get<int64_t>() / config.at("num_attention_heads").get<int64_t>()
              : config.at("head_dim").get<int64_t>();
  for (const char* cap : {"final_logit_softcapping", "attn_logit_softcapping"}) {
    if (fields.has(cap)) config[cap] = fields.number(cap);
  }
  if (!fields.has("attention.sliding_window_pattern")) return;
  const Json& pattern = fields.metadata.at(fields.key("attention.sliding_window_pattern"));
  if (!pattern.is_array()) {
    config["sliding_window_pattern"] = fields.integer("attention.sliding_window_pattern");
    return;
  }
  for (const Json& has_window : pattern)
    config["layer_types"].push_back(has_window == true || has_window == 1 ? "sliding_attention" : "full_attention");
}

void read_windows_fields(const Fields& fields, Json& config) {
  if (!fields.has("attention.sliding_window")) return;
  const int64_t window = fields.integer("attention.sliding_window");
  if (fields.architecture == "olmo2") fields.refuse("OLMo 3 (a sliding window) is not supported");
  config["sliding_window"] = window;
  // Mistral's files say `llama`; what tells them apart is the window.
  if (fields.architecture == "llama" && window != 0) config["model_type"] = "mistral";
}

}  // namespace

Json gguf_to_config(const Json& metadata, const std::string& where) {
  const std::string architecture = base::json_string(metadata, "general.architecture", where);
  const Family& family = family_of(architecture, where);
  const Fields fields = {metadata, architecture, where};
  if (fields.has("expert_count") && fields.integer("expert_count") > 0)
    fields.refuse("a mixture of experts is not supported");
  Json config = {{"model_type", family.model_type}};
  read_sizes(fields, config);
  read_vocabulary(fields, config);
  read_norms(fields, config);
  read_rope_fields(fields, config);
  read_windows_fields(fields, config);
  if (architecture == "gemma3") read_gemma3(fields, config);
  if (architecture == "gptneox") config["use_parallel_residual"] = fields.boolean("use_parallel_residual", true);
  return config;
}

}  // namespace cepe::model
