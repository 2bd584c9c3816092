// Perplexity of the last tokens of a decoder window, given more and more of the text before it as context. The same
// target tokens are scored for every length, so that nothing but the context differs (METHOD: language modelling).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "context/chunk.h"
#include "data/documents.h"
#include "text/tokenizer.h"

namespace cepe::eval {

enum class ContextSource {
  own,    // the text before the window
  other,  // as much text of another document: what is gained beyond this is understanding of the text itself
};
ContextSource context_source(const std::string& name);  // Errors: invalid_argument, with the names known

struct PerplexityOptions {
  int64_t decoder_tokens = 2048;  // the window, a BOS the model wants included
  int64_t target_tokens = 256;    // the last of them are scored
  std::vector<int64_t> context_tokens = {0, 2048, 8192, 32768, 126976};
  int64_t samples = 1;    // windows a document
  int64_t documents = 0;  // at most so many documents that are long enough; 0 = all
  uint64_t seed = 0;
  ContextSource source = ContextSource::own;
};

// Errors: invalid_argument, naming the option and its range.
void validate(const PerplexityOptions& options);

struct Window {
  int64_t document = 0;              // which of those used
  std::vector<text::Token> context;  // what stands before it, as long as the longest context
  std::vector<text::Token> decoder;  // decoder_tokens ids
};

struct WindowSet {
  std::vector<Window> windows;  // by document, in the order of their places
  int64_t documents = 0;        // used
  int64_t too_short = 0;        // had fewer tokens than the longest context and the window: left out at every length
};

// Adds `samples` windows of one document (fewer where it has fewer places), at different places drawn from (seed,
// number of the document). `beginning` is put in front of each window: a BOS, or nothing.
void draw_windows(std::span<const text::Token> ids, const PerplexityOptions& options,
                  std::optional<text::Token> beginning, WindowSet& set);

// The same for the documents of a corpus. BOS only where the tokenizer adds one. Shows progress. Errors: those of
// reading; invalid_argument where no document is long enough, or, for the context of another, only one.
WindowSet draw_windows(data::DocumentReader& reader, const text::Tokenizer& tokenizer,
                       const PerplexityOptions& options);

// The last `tokens` ids as chunks, cut from the end: those nearest to the window are whole, and the oldest may be
// short. So a longer context has all the whole chunks of a shorter one, and each is encoded once.
std::vector<context::Chunk> chunks_before(std::span<const text::Token> ids, int64_t tokens, int64_t chunk_size);

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

  double perplexity() const;
};

// All windows with one length of context. Shows progress; stops on Ctrl-C (throws base::Interrupted).
// Errors: internal where the scorer gives another number of values, or one that is not finite.
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
// "peak_memory_bytes"}.
base::OrderedJson to_json(const PerplexityResult& result);
// Lines for people; `table_row` of one result under `table_head`.
std::string table_head();
std::string table_row(const PerplexityResult& result);

}  // namespace cepe::eval
