// Samples that were prepared beforehand, in published MDS folders: the window and the text before it, what a teacher
// said of the window (stored logits), chunks found for it (retrieved).
//
// The columns may stand in one folder or, as published, in folders beside one another: then sample i of each belong
// together (SampleFolders::expect_parallel).
//   token_ids [>= T], prev_token_ids [>= context]     the window is its beginning, the context its end
//   target_prob [T or Td, k + 1], target_index [T or Td, k]   Td = floor(T / 2); the last of k + 1 = all other tokens
//   retrieved_token_ids [K, S], retrieved_neighbor_token_ids [K, S'], retrieval_scores [K]
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/files.h"
#include "text/tokenizer.h"

namespace cepe::data {

// The text that follows a retrieved chunk in its document: left out, in the same chunk, or a chunk of its own.
enum class Neighbours { none, joint, separate };

struct PreparedSettings {
  base::Path tokens;         // folder of token_ids; "": that of the others
  base::Path stored_logits;  // "": none
  base::Path retrieved;      // "": the context is prev_token_ids
  Neighbours neighbours = Neighbours::none;
  int64_t context_tokens = 0;  // a multiple of chunk_tokens
  int64_t decoder_tokens = 0;  // T
  int64_t chunk_tokens = 256;
  int64_t top = 50;                                // k
  int64_t vocabulary = 0, encoder_vocabulary = 0;  // of window and teacher; of context
  uint64_t seed = 0;
};

struct PreparedSample {
  std::vector<text::Token> context;  // [context_tokens], whole chunks; of retrieved ones the best is the last
  std::vector<text::Token> window;   // [T]
  std::vector<float> probabilities;  // [Td, k + 1], of the last Td positions of the window; empty without a teacher
  std::vector<text::Token> indices;  // [Td, k]
};

// In epochs: each visits all samples in a pseudo-random order of its own. A sample is a pure function of the settings
// and its index.
class PreparedSamples {
 public:
  // Looks at one sample. Errors: as at(); invalid_argument for folders that do not go together.
  explicit PreparedSamples(const PreparedSettings& settings);

  int64_t size() const;  // of an epoch
  // Any index; from any number of threads. Errors: invalid_argument for sizes that do not fit the settings, with what
  // would; unsupported for missing columns and other types; corrupt for ids outside the vocabulary and for what is no
  // probability; each names file, sample and column.
  PreparedSample at(uint64_t index) const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

}  // namespace cepe::data
