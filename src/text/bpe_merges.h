// The merge rules of BPE from what files hold.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/json.h"
#include "text/merge_table.h"
#include "text/vocabulary.h"

namespace cepe::text {

// An array of "left right" or ["left", "right"], in order of rank. `continuing_prefix` is what the right one loses when
// they join. Errors: corrupt (wrong types, a token that the vocabulary lacks), naming `where` and the rule.
MergeTable merges_from_json(const base::Json& json, const Vocabulary& vocabulary, std::string_view continuing_prefix,
                            const std::string& where);

// SentencePiece's BPE has scores instead: any two neighbours whose text is a token may merge, the highest score first.
// `mergeable[i]`: whether token i may be made so. Errors: unsupported (a token too long), naming `where`.
MergeTable merges_from_scores(const Vocabulary& vocabulary, std::span<const float> scores,
                              const std::vector<bool>& mergeable, const std::string& where);

}  // namespace cepe::text
