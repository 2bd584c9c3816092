// Which tokens of a corpus are seen when: a pure function of (corpus, settings, split, index), so that resuming,
// sharding anew and any number of ranks see the same samples. index = step * global batch + place in the batch.
//
// Every part of the mixture goes through its documents in epochs. An epoch cuts them at a random phase into windows of
// N tokens that do not overlap, and visits the windows in a pseudo-random order.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/settings.h"
#include "data/token_corpus.h"

namespace cepe::data {

struct MixturePart {
  std::string domain = "*";     // name, or *: all that no other part names
  double weight = 1;            // share of the samples, relative to the other parts; 0: none
  bool whole_documents = true;  // true: N tokens inside one document of at least N tokens;
                                // false: windows over the domain's documents, one after the other
};

template <class Visitor>
void visit(Visitor& visitor, MixturePart& part) {
  visitor.field("domain", part.domain, {.help = "domain of the documents; *: all that no other part names"});
  visitor.field("weight", part.weight, {.help = "share of the samples, relative to the others", .least = 0});
  visitor.field("whole_documents", part.whole_documents,
                {.help = "true: inside one document; false: windows over concatenated documents"});
}

struct SamplerSettings {
  int64_t tokens = 4096;  // N, of each sample
  uint64_t seed = 0;
  double held_out = 0;               // share of the documents that the training split leaves out; in [0, 1)
  std::vector<MixturePart> mixture;  // empty: one part, all documents
  bool without_empty_parts = false;  // parts without a document long enough are left out: validation's are few
};

struct Sample {
  std::vector<text::Token> ids;  // [N]
  int64_t document = 0;          // of its first token: index into documents()
};

// A document is wholly in one split, by a hash of its id: whatever the seed and the other documents are.
enum class Split { training, held_out };
bool is_held_out(const CorpusDocument& document, double share);

class Sampler {
 public:
  // The corpus may go away afterwards: its files stay mapped. Errors: invalid_argument for settings that make no sense
  // and for a part of positive weight without a document (or, where they are joined, documents) of N tokens; with
  // without_empty_parts only where that is so of all.
  Sampler(const TokenCorpus& corpus, const SamplerSettings& settings, Split split = Split::training);

  // Any index; from any number of threads. Errors: corrupt, from the corpus.
  Sample at(uint64_t index) const;

  // Samples until each part has been seen about once: that of the part which takes longest.
  int64_t epoch_samples() const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

}  // namespace cepe::data
