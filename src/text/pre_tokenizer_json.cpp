// Reading the "pre_tokenizer" of tokenizer.json.
#include "base/error.h"
#include "text/expressions.h"
#include "text/pre_tokenizer.h"
#include "text/utf8.h"

namespace cepe::text {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;

constexpr size_t most_steps = 64;

SplitBehavior behavior_from_json(const Json& json, const std::string& where) {
  const std::string name = base::json_string(json, "behavior", where, "Isolated");
  if (name == "Removed" || name == "removed") return SplitBehavior::removed;
  if (name == "Isolated" || name == "isolated") return SplitBehavior::isolated;
  if (name == "MergedWithPrevious" || name == "merged_with_previous") return SplitBehavior::merged_with_previous;
  if (name == "MergedWithNext" || name == "merged_with_next") return SplitBehavior::merged_with_next;
  if (name == "Contiguous" || name == "contiguous") return SplitBehavior::contiguous;
  throw Error(ErrorCode::corrupt,
              where + ": field 'behavior' is '" + name.substr(0, 80) +
                  "'; expected Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

PatternSplit pattern_split(const Json& json, const std::string& where) {
  if (!base::json_has(json, "pattern")) throw Error(ErrorCode::corrupt, where + ": field 'pattern' is missing");
  return {Pattern::from_json(json["pattern"], where), behavior_from_json(json, where),
          base::json_boolean(json, "invert", where, false)};
}

MetaspaceSplit metaspace(const Json& json, const std::string& where) {
  MetaspaceSplit split;
  split.replacement = base::json_string(json, "replacement", where, split.replacement);
  if (split.replacement.empty() || character_at(split.replacement, 0).size != split.replacement.size()) {
    throw Error(ErrorCode::corrupt,
                where + ": field 'replacement' must be one character, found '" + split.replacement.substr(0, 80) + "'");
  }
  split.prepend = prepend_scheme_from_json(json, where);
  split.split = base::json_boolean(json, "split", where, true);
  return split;
}

void append_steps(const Json& json, const std::string& where, std::vector<PreTokenizerStep>& steps) {
  if (json.is_null()) return;
  const std::string type = base::json_string(json, "type", where);
  if (type == "Sequence") {
    if (!base::json_has(json, "pretokenizers") || !json["pretokenizers"].is_array())
      throw Error(ErrorCode::corrupt, where + ": field 'pretokenizers' must be an array");
    for (const auto& part : json["pretokenizers"]) append_steps(part, where, steps);
    return;
  }
  if (steps.size() >= most_steps)
    throw Error(ErrorCode::unsupported, where + ": more than " + std::to_string(most_steps) + " pre-tokenisers");
  if (type == "ByteLevel") {
    append_byte_level(steps, base::json_boolean(json, "add_prefix_space", where, true),
                      base::json_boolean(json, "use_regex", where, true));
  } else if (type == "Split") {
    steps.emplace_back(pattern_split(json, where));
  } else if (type == "Digits") {
    const bool each = base::json_boolean(json, "individual_digits", where, false);
    steps.emplace_back(ClassSplit{CharacterClass::numeric, each ? SplitBehavior::isolated : SplitBehavior::contiguous});
  } else if (type == "Metaspace") {
    steps.emplace_back(metaspace(json, where));
  } else if (type == "Whitespace") {
    steps.emplace_back(PatternSplit{Pattern::regex(words_expression, where), SplitBehavior::removed, true});
  } else if (type == "WhitespaceSplit") {
    steps.emplace_back(ClassSplit{CharacterClass::whitespace, SplitBehavior::removed});
  } else if (type == "Punctuation") {
    steps.emplace_back(ClassSplit{CharacterClass::punctuation, behavior_from_json(json, where)});
  } else if (type == "BertPreTokenizer") {
    steps.emplace_back(ClassSplit{CharacterClass::whitespace, SplitBehavior::removed});
    steps.emplace_back(ClassSplit{CharacterClass::punctuation, SplitBehavior::isolated});
  } else if (type == "CharDelimiterSplit") {
    steps.emplace_back(
        PatternSplit{Pattern::literal(base::json_string(json, "delimiter", where)), SplitBehavior::removed, false});
  } else {
    throw Error(ErrorCode::unsupported, where + ": pre-tokeniser '" + type.substr(0, 80) + "' is not supported");
  }
}

}  // namespace

// Older files say only add_prefix_space.
PrependScheme prepend_scheme_from_json(const Json& json, const std::string& where) {
  const bool add = base::json_boolean(json, "add_prefix_space", where, true);
  const std::string name = base::json_string(json, "prepend_scheme", where, add ? "always" : "never");
  if (name == "always") return PrependScheme::always;
  if (name == "first") return PrependScheme::first;
  if (name == "never") return PrependScheme::never;
  throw Error(ErrorCode::corrupt,
              where + ": field 'prepend_scheme' is '" + name.substr(0, 80) + "'; expected always, first or never");
}

PreTokenizer pre_tokenizer_from_json(const Json& json, const std::string& where) {
  PreTokenizer pre_tokenizer;
  append_steps(json, where, pre_tokenizer.steps);
  return pre_tokenizer;
}

}  // namespace cepe::text
