#include "text/tokenizer_config.h"

#include <charconv>

#include "base/error.h"

namespace cepe::text {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;

constexpr size_t largest_config = size_t{64} << 20;

// "<s>" or {"content": "<s>", ...}; null and absent are nothing.
std::optional<std::string> token_field(const Json& json, const char* field, const std::string& where) {
  if (!base::json_has(json, field)) return {};
  if (json[field].is_object()) return base::json_string(json[field], "content", where + ": " + field);
  return base::json_string(json, field, where);
}

std::optional<bool> optional_boolean(const Json& json, const char* field, const std::string& where) {
  if (!base::json_has(json, field)) return {};
  return base::json_boolean(json, field, where, false);
}

// A string, or a list of named templates of which "default" is meant.
std::string chat_template_of(const Json& json, const std::string& where) {
  if (!base::json_has(json, "chat_template")) return "";
  const Json& value = json["chat_template"];
  if (!value.is_array()) return base::json_string(json, "chat_template", where);
  std::string chosen;
  for (const Json& item : value) {
    const std::string item_where = where + ": chat_template";
    const std::string source = base::json_string(item, "template", item_where);
    if (chosen.empty() || base::json_string(item, "name", item_where, "") == "default") chosen = source;
  }
  return chosen;
}

std::vector<AddedToken> added_tokens_decoder(const Json& json, const std::string& where) {
  std::vector<AddedToken> added;
  if (!base::json_has(json, "added_tokens_decoder")) return added;
  const std::string field = where + ": added_tokens_decoder";
  if (!json["added_tokens_decoder"].is_object()) throw Error(ErrorCode::corrupt, field + " must be an object");
  for (const auto& [key, value] : json["added_tokens_decoder"].items()) {
    AddedToken token = added_token_from_json(value, field);
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token.id);
    if (error != std::errc() || end != key.data() + key.size() || token.id < 0)
      throw Error(ErrorCode::corrupt, field + ": '" + key.substr(0, 80) + "' is no token id");
    added.push_back(std::move(token));
  }
  return added;
}

Json read_if_there(const base::Path& path) {
  if (!base::is_there(path)) return Json::object();
  Json json = base::parse_json(base::read_file(path, largest_config), path.string());
  if (!json.is_object()) throw Error(ErrorCode::corrupt, path.string() + ": must be an object");
  return json;
}

}  // namespace

TokenizerConfig tokenizer_config_from_json(const Json& json, const std::string& where) {
  TokenizerConfig config;
  config.where = where;
  config.bos = token_field(json, "bos_token", where);
  config.eos = token_field(json, "eos_token", where);
  config.pad = token_field(json, "pad_token", where);
  config.unknown = token_field(json, "unk_token", where);
  config.cls = token_field(json, "cls_token", where);
  config.sep = token_field(json, "sep_token", where);
  config.mask = token_field(json, "mask_token", where);
  config.add_bos = optional_boolean(json, "add_bos_token", where);
  config.add_eos = optional_boolean(json, "add_eos_token", where);
  config.tokenizer_class = base::json_string(json, "tokenizer_class", where, "");
  config.chat_template = chat_template_of(json, where);
  config.added = added_tokens_decoder(json, where);
  config.lowercase = base::json_boolean(json, "do_lower_case", where, true);
  config.separate_chinese = base::json_boolean(json, "tokenize_chinese_chars", where, true);
  config.strip_accents = optional_boolean(json, "strip_accents", where);
  return config;
}

TokenizerConfig read_tokenizer_config(const base::Path& folder) {
  const base::Path path = folder / "tokenizer_config.json";
  Json json = read_if_there(path);
  const Json special_tokens = read_if_there(folder / "special_tokens_map.json");
  for (const auto& [field, token] : special_tokens.items()) {
    if (!json.contains(field)) json[field] = token;
  }
  TokenizerConfig config = tokenizer_config_from_json(json, path.string());
  if (const base::Path jinja = folder / "chat_template.jinja"; base::is_there(jinja)) {
    config.chat_template = base::read_file(jinja, largest_config);
  }
  return config;
}

}  // namespace cepe::text
