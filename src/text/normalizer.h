// What a tokenizer does to text before it looks for words (the "normalizer" of tokenizer.json).
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "base/json.h"
#include "text/pattern.h"
#include "text/unicode.h"

namespace cepe::text {

struct LowercaseRule {};
struct StripAccentsRule {};
struct ByteLevelRule {};  // every byte becomes its printable character
struct StripRule {
  bool left = true;
  bool right = true;
};
struct ReplaceRule {
  Pattern pattern;
  std::string content;
};
struct PrependRule {
  std::string content;  // put in front of any text that is not empty
};
struct BertRule {
  bool clean_text = true;
  bool separate_chinese = true;
  bool strip_accents = true;
  bool lowercase = true;
};

using NormalizerRule = std::variant<UnicodeForm, LowercaseRule, StripAccentsRule, ByteLevelRule, StripRule, ReplaceRule,
                                    PrependRule, BertRule>;

struct Normalizer {
  std::vector<NormalizerRule> rules;  // applied in order

  bool empty() const { return rules.empty(); }
  // `text` is UTF-8. Errors: unsupported where the result would grow beyond growth_limit (pieces.h).
  std::string apply(std::string_view text) const;
};

// `json` may be null. Errors: corrupt, unsupported (names the type), naming `where`.
Normalizer normalizer_from_json(const base::Json& json, const std::string& where);

}  // namespace cepe::text
