// Documents to a tokenised corpus: several threads, the documents' own order, and work that can be interrupted.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/json.h"
#include "text/tokenizer.h"

namespace cepe::data {

struct CorpusOptions {
  std::string domain;               // of all documents; "": their field "domain", else domain_of_file
  bool bos = false, eos = false;    // around each document
  int64_t max_document_tokens = 0;  // what is beyond is cut off, BOS and EOS counted; 0: no limit
  int64_t max_skipped = 0;          // bad lines and files to report and pass over before one is an error
  int64_t shard_tokens = int64_t{1} << 27;
  int threads = 0;           // 0: as many as there are processors
  double save_seconds = 10;  // between two states to which an interrupted build returns
  std::string model;         // whose tokenizer, for people
};

struct CorpusReport {
  int64_t documents = 0, tokens = 0;  // of the whole corpus
  int64_t found = 0;                  // documents that an earlier, interrupted build had written
  int64_t skipped = 0;                // bad lines and files
  int64_t empty = 0;                  // documents without tokens; they are left out
};

// The file's name up to the first '.', and up to a '-' before digits: books_train-0.jsonl.zst is "books_train".
std::string domain_of_file(const base::Path& path);

// Path, size and a digest of each file, by which a changed one is known; of very many, their number and one digest.
// Errors: not_found, io.
base::Json inputs_of(const std::vector<base::Path>& files);

// Errors: invalid_argument where no document was found; `sources` says in what ("the 3 files").
void expect_documents(const CorpusReport& report, const base::Path& folder, const std::string& sources);

// The same command goes on where an interrupted one stopped; once finished it only reports. A document is tokenised as
// a whole, so that its ids are exactly the tokenizer's; texts in flight take at most 64 MiB and one document. Errors:
// invalid_argument for a folder that holds something else, or a corpus of other inputs, tokenizer or settings (named;
// max_skipped and threads may differ), and where there is no document with text: no corpus is made then; whatever
// DocumentReader and CorpusWriter say; base::Interrupted. What was done is kept whatever happens.
CorpusReport build_corpus(const std::vector<base::Path>& files, const text::Tokenizer& tokenizer,
                          const base::Path& folder, const CorpusOptions& options);

}  // namespace cepe::data
