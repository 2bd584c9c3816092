// What an answer leaned on: the attention mass that its tokens gave to each chunk and document of the context.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "cli/documents.h"
#include "cli/runtime.h"
#include "context/chunk.h"
#include "engine/request.h"

namespace cepe::cli {

struct Attribution {
  struct ChunkShare {
    int64_t document = 0;  // index of `documents`
    int64_t chunk = 0;     // of that document, from 0
    int64_t tokens = 0;
    double mass = 0;   // mean over heads, layers and those of the answer's tokens that had a context: all sum to 1
    std::string text;  // how it begins
  };
  std::vector<std::string> documents;         // names; one more, "", where the prompt or the conversation was read too
  std::vector<double> document_masses;        // [documents]
  std::vector<std::vector<double>> by_token;  // [tokens, documents]; zeros before there was a context
  std::vector<ChunkShare> chunks;             // in the order of the context
};

// chunks: the context as it was at the beginning; pages beyond are of the conversation itself.
Attribution attribution_of(const engine::Completion& completion, const std::vector<context::Chunk>& chunks,
                           const std::vector<Document>& documents, const text::Tokenizer& tokenizer);

base::Json attribution_json(const Attribution& attribution);
// A line for each document, most first, and for the five chunks that drew most.
std::string attribution_text(const Attribution& attribution);

}  // namespace cepe::cli
