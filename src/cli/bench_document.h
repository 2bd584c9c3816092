// cepe bench --document: what questions about a document cost that was read before.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "cli/runtime.h"

namespace cepe::cli {

struct BenchDocumentOptions {
  std::vector<std::string> documents;  // one after another; nothing where none is given
  int64_t question_tokens = 32;
  int64_t tokens = 32;  // of an answer
};

// At each of `lengths`, ascending, the documents' first so many tokens as the context, encoded beforehand and stored;
// the question is what follows them. With the model loaded anew and nothing of the context in memory: a first question,
// the documents' tokenising and the reading of the chunks included; then another one over what the first has left.
// {"model", "device", "documents": [{"context_tokens", "question_tokens", "first_question_seconds",
// "further_question_seconds", "tokens_per_second", "kept", "peak_memory_bytes"}]}; the peak is the process's so far.
// Errors: invalid_argument where the documents are too short or a store's option rules a store out.
base::Json measure_document(const BenchDocumentOptions& options, const ModelOptions& model, const CommonOptions& common,
                            const std::vector<int64_t>& lengths);
std::string document_text(const base::Json& result);

}  // namespace cepe::cli
