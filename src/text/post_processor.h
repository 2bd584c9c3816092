// What a model puts around a text: BOS, [CLS] ... [SEP] (the "post_processor" of tokenizer.json, single sequences).
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "text/vocabulary.h"

namespace cepe::text {

struct PostProcessor {
  std::vector<Token> before;
  std::vector<Token> after;
};

// `json` may be null. Errors: corrupt (ids that the vocabulary lacks among them), unsupported; naming `where`.
// `vocabulary_size` bounds the ids.
PostProcessor post_processor_from_json(const base::Json& json, int64_t vocabulary_size, const std::string& where);

}  // namespace cepe::text
