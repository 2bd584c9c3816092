// Perplexity of the last tokens of a decoder window, given more and more of the text before it as context. The same
// target tokens are scored for every length, so that nothing but the context differs (arXiv 2402.16617).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "eval/paired.h"
#include "eval/windows.h"

namespace cepe::eval {

// ln p of the last `targets` ids of `window`, given the chunks.
using Scorer = std::function<std::vector<float>(std::span<const context::Chunk> context,
                                                std::span<const text::Token> window, int64_t targets)>;

struct PerplexityResult {
  int64_t context_tokens = 0;
  double nll = 0;                        // nats a token, pooled over all target tokens
  std::optional<double> standard_error;  // of nll, over documents; none where there is only one
  int64_t tokens = 0, documents = 0;
  double seconds = 0;  // encoding what the store did not have, and scoring
  int64_t peak_memory_bytes = 0;
  std::vector<DocumentNll> by_document;  // in the order in which they were read

  double perplexity() const;
};

// All windows with one length of context. Shows progress; stops on Ctrl-C (throws base::Interrupted).
// Errors: internal where the scorer gives another number of values; corrupt, naming the document, for one that is not
// finite.
PerplexityResult measure_perplexity(const WindowSet& set, int64_t context_tokens, const PerplexityOptions& options,
                                    int64_t chunk_size, const Scorer& score);

// What one document adds up to.
struct DocumentLoss {
  double nll = 0;  // sum over its target tokens
  int64_t tokens = 0;
};
// Of the pooled mean m = sum nll / sum tokens, documents being drawn and not tokens (the ratio estimator):
// sqrt(n / (n - 1) * sum (nll_d - m * tokens_d)^2) / sum tokens. None for fewer than two.
std::optional<double> standard_error(std::span<const DocumentLoss> documents);

// {"context_tokens", "perplexity", "nll", "stderr" (of nll, or null), "tokens", "documents", "seconds",
// "peak_memory_bytes"}, and with `by_document` an array of that name: {"id", "nll", "tokens", "targets"}.
base::OrderedJson to_json(const PerplexityResult& result, bool by_document = false);
// Lines for people; `table_row` of one result under `table_head`.
std::string table_head();
std::string table_row(const PerplexityResult& result);

}  // namespace cepe::eval
