// How a tokenizer cuts text into the pieces that its model sees (the "pre_tokenizer" of tokenizer.json).
#pragma once

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/json.h"
#include "text/pattern.h"
#include "text/pieces.h"

namespace cepe::text {

// What becomes of the matches of a pattern, the delimiters.
enum class SplitBehavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };
enum class CharacterClass { whitespace, punctuation, numeric };
enum class PrependScheme { always, first, never };

struct PatternSplit {
  Pattern pattern;
  SplitBehavior behavior = SplitBehavior::isolated;
  bool invert = false;  // the delimiters are what does not match
};
struct ClassSplit {  // every character of the class is a delimiter
  CharacterClass kind = CharacterClass::whitespace;
  SplitBehavior behavior = SplitBehavior::isolated;
};
struct PrefixSpace {};   // a space in front of every piece that has none
struct ByteLevelMap {};  // bytes become their printable characters
struct MetaspaceSplit {
  std::string replacement = "\xE2\x96\x81";  // U+2581
  PrependScheme prepend = PrependScheme::always;
  bool split = true;
};

using PreTokenizerStep = std::variant<PatternSplit, ClassSplit, PrefixSpace, ByteLevelMap, MetaspaceSplit>;

struct PreTokenizer {
  std::vector<PreTokenizerStep> steps;  // applied in order, each to all pieces

  // Errors: unsupported (an expression that needs too many steps, unreasonable growth).
  void apply(Pieces& pieces) const;
};

// `json` may be null. Errors: corrupt, unsupported (names the type), naming `where`.
PreTokenizer pre_tokenizer_from_json(const base::Json& json, const std::string& where);
PrependScheme prepend_scheme_from_json(const base::Json& json, const std::string& where);
// ByteLevel as tokenizer.json means it: a space in front, GPT-2's expression, the printable bytes.
void append_byte_level(std::vector<PreTokenizerStep>& steps, bool add_prefix_space, bool use_expression);

// A run of text and whether it is a delimiter.
using Span = std::pair<Range, bool>;
// Joins and drops spans as `behavior` says, in place (Hugging Face's NormalizedString::split).
void join_spans(std::vector<Span>& spans, SplitBehavior behavior);

}  // namespace cepe::text
