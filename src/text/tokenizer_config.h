// tokenizer_config.json, chat_template.jinja and special_tokens_map.json: what a folder says beside its tokenizer.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/json.h"
#include "text/added_tokens.h"

namespace cepe::text {

struct TokenizerConfig {
  std::optional<std::string> bos, eos, pad, unknown, cls, sep, mask;
  std::optional<bool> add_bos, add_eos;
  std::string tokenizer_class;
  std::string chat_template;
  std::vector<AddedToken> added;  // added_tokens_decoder
  bool lowercase = true;          // these three for vocab.txt only
  bool separate_chinese = true;
  std::optional<bool> strip_accents;
  std::string where;  // names the file in messages
};

// Files that are absent count as empty. Errors: corrupt, io; each names the file and the field.
TokenizerConfig read_tokenizer_config(const base::Path& folder);
TokenizerConfig tokenizer_config_from_json(const base::Json& json, const std::string& where);

}  // namespace cepe::text
