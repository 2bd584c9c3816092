// The corpora that CEPE was published with: MDS folders of samples (columns token_ids, prev_token_ids, domain) and .npy
// files of documents ([number n][length 1..n][tokens]), read and written.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/files.h"
#include "data/token_corpus.h"
#include "formats/mds.h"
#include "formats/mds_writer.h"
#include "formats/npy.h"

namespace cepe::data {

struct PublishedSample {
  std::vector<text::Token> previous;  // what the encoder reads; empty where the folder has no such column
  std::vector<text::Token> tokens;    // what the decoder reads
  std::string domain;                 // "" where the folder has no such column
};

// The folders at and below `path` that hold an index.json, sorted. Errors: not_found where there is none.
std::vector<base::Path> list_mds_folders(const base::Path& path);

class PublishedSamples {
 public:
  // Ids must be below `vocabulary`. Errors: not_found, corrupt, unsupported.
  PublishedSamples(const base::Path& folder, int64_t vocabulary);
  // The next sample; none at the end. Errors: corrupt, unsupported; each names shard, sample and column.
  std::optional<PublishedSample> next();

 private:
  void open_shard();

  base::Path folder_;
  int64_t vocabulary_;
  std::vector<formats::MdsShard> shards_;
  size_t shard_ = 0;
  int64_t sample_ = 0;
  std::string where_;
  std::optional<formats::MdsShardFile> file_;
  std::optional<formats::MdsSamples> samples_;
};

// The documents of one .npy file.
class PublishedDocuments {
 public:
  // Errors: not_found; corrupt where the lengths do not add up to the tokens; unsupported.
  PublishedDocuments(const base::Path& file, int64_t vocabulary);
  int64_t size() const { return documents_; }
  // The next document; none at the end. Errors: corrupt.
  std::optional<std::vector<text::Token>> next();

 private:
  base::MappedFile file_;
  std::string where_;
  int64_t vocabulary_;
  formats::NumpyArray array_;
  int64_t documents_ = 0;
  int64_t document_ = 0;
  int64_t place_ = 0;  // of the next document's first token
};

// All documents of the corpus in one file, as 64-bit integers. Errors: io; base::Interrupted.
void write_published_documents(const TokenCorpus& corpus, const base::Path& file);

// Samples of `previous` + `tokens` ids from every document that is long enough, as the published preparation cuts them:
// a step of `tokens`, from the document's beginning. How many there were. `folder` is there.
// Errors: invalid_argument for sizes that make no sense, and where no document is long enough; io; base::Interrupted.
int64_t write_published_samples(const TokenCorpus& corpus, int64_t previous, int64_t tokens, const base::Path& folder,
                                const formats::MdsWriterSettings& settings = {});

}  // namespace cepe::data
