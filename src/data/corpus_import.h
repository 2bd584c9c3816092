// Published corpora (published.h) to a corpus of this program's own.
#pragma once

#include <string>
#include <vector>

#include "data/corpus_builder.h"
#include "data/published.h"

namespace cepe::data {

struct ImportSources {
  std::vector<base::Path> mds;  // folders with index.json: a document a sample, previous and decoder's tokens joined
  std::vector<base::Path> npy;  // files: their documents
};

// `options.domain` "": the samples' own, else domain_of_file of the folder or file. bos, eos and max_skipped mean
// nothing here; whatever else build_corpus promises holds. `tokenizer` is the one that the ids are of. Errors: as
// build_corpus; corrupt for ids outside its vocabulary. Sources that were replaced are other inputs.
CorpusReport import_corpus(const ImportSources& sources, const text::Tokenizer& tokenizer, const base::Path& folder,
                           const CorpusOptions& options);

}  // namespace cepe::data
