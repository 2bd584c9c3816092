// Which tokens an evaluation of language modelling scores, and which text before them is its context: windows drawn
// from documents. The same windows serve every length of context, so that nothing but the context differs (arXiv
// 2402.16617).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/hash.h"
#include "context/chunk.h"
#include "data/documents.h"
#include "text/tokenizer.h"

namespace cepe::eval {

enum class ContextSource {
  own,       // the text before the window
  other,     // as much text of another document: what is gained beyond this is understanding of the text itself
  shuffled,  // the text before the window, the tokens inside each chunk shuffled: what is gained beyond this is their
             // order
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
  // Of ContextSource::other: the document so many further on, the first again after the last; where that is the same
  // text, the next that is another.
  int64_t other = 1;
  int64_t skipped_tokens = 0;  // nearest to what the decoder reads: neither it nor the encoder reads them
  int64_t direct_tokens = 0;   // before the window, read by the decoder itself in front of it
  // Tokens that each window has before it at least. The places depend on the documents, this, the window and the seed
  // alone, so runs with the same room score the same targets whatever they do with the text before. 0: text_before().
  int64_t room = 0;
};

// What is read or skipped before a window: the longest context, then the skipped tokens, then the direct ones.
int64_t text_before(const PerplexityOptions& options);

// Errors: invalid_argument, naming the option and its range.
void validate(const PerplexityOptions& options);

struct Window {
  int64_t document = 0;  // which of those used
  std::vector<text::Token>
      context;  // of its own document, as long as the longest context; it ends before what is skipped
  std::vector<text::Token> decoder;  // what the decoder reads: a BOS, direct_tokens ids, the window
};

struct WindowSet {
  std::vector<Window> windows;        // by document, in the order of their places
  std::vector<std::string> ids;       // of the documents used
  std::vector<base::Digest> digests;  // of their tokens: one text may be given twice
  int64_t documents = 0;              // used
  int64_t too_short = 0;              // had fewer tokens than the room and the window: left out at every length
  int64_t longest = 0;                // tokens of the longest document read
};

// Adds `samples` windows of the document `id` (fewer where it has fewer places), at different places drawn from (seed,
// number of the document). `beginning` is put in front of what the decoder reads: a BOS, or nothing.
void draw_windows(const std::string& id, std::span<const text::Token> tokens, const PerplexityOptions& options,
                  std::optional<text::Token> beginning, WindowSet& set);

// The same for the documents of a corpus. BOS only where the tokenizer adds one. Shows progress. Errors: those of
// reading; invalid_argument where no document is long enough, or, for the context of another, too few are
// or all are one text.
WindowSet draw_windows(data::DocumentReader& reader, const text::Tokenizer& tokenizer,
                       const PerplexityOptions& options);

// The last `tokens` ids as chunks, cut from the end: those nearest to the window are whole, and the oldest may be
// short. So a longer context has all the whole chunks of a shorter one, and each is encoded once.
std::vector<context::Chunk> chunks_before(std::span<const text::Token> ids, int64_t tokens, int64_t chunk_size);

// The context that each window of a set is given.
class WindowContexts {
 public:
  // The set must outlive it.
  WindowContexts(const WindowSet& set, const PerplexityOptions& options, int64_t chunk_size);

  // Of window number `window`: `tokens` ids of the source as chunks, cut as by chunks_before. Another document lends
  // the context of its window of the same number (the numbers start anew where it has fewer). A chunk is shuffled by
  // (seed, window, chunk counted from the end), so that a longer context still has all the whole chunks of a shorter
  // one.
  std::vector<context::Chunk> chunks(size_t window, int64_t tokens) const;

 private:
  std::span<const text::Token> text(size_t window) const;
  int64_t lender_to(int64_t document) const;

  const WindowSet* set_;
  ContextSource source_;
  int64_t other_, chunk_size_;
  uint64_t seed_;
  std::map<int64_t, std::vector<size_t>> by_document_;
};

}  // namespace cepe::eval
