// corpus.json and documents.jsonl of a corpus' folder, read (from strangers) and printed.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "data/token_corpus.h"

namespace cepe::data {

struct CorpusShard {
  int64_t tokens = 0;
  std::string sha256;  // of the file, as hexadecimal digits
};

struct CorpusIndex {
  int64_t vocabulary = 0;
  int64_t bytes_per_id = 2;  // 2 or 4
  std::string tokenizer;     // fingerprint: tokenizer_fingerprint.h
  std::string model;         // whose tokenizer, for people
  std::vector<CorpusShard> shards;
  int64_t documents = 0;
  int64_t tokens = 0;
  std::string documents_sha256;
  base::Json made_from;  // settings and inputs of the build, an object
};

inline constexpr int64_t corpus_version = 1;
inline constexpr const char* corpus_index_name = "corpus.json";
inline constexpr const char* corpus_documents_name = "documents.jsonl";
std::string shard_name(size_t shard);                  // tokens-00000.bin
inline constexpr size_t most_corpus_shards = 100'000;  // as many as five digits name
inline int64_t bytes_per_id(int64_t vocabulary) { return vocabulary <= 65536 ? 2 : 4; }

// Errors: corrupt, naming `where` and the field; unsupported for another version.
CorpusIndex parse_corpus_index(std::string_view text, const std::string& where);
std::string print_corpus_index(const CorpusIndex& index);

// All lines; `first` of each follows from the tokens before it. Errors: corrupt, naming the line.
std::vector<CorpusDocument> parse_corpus_documents(std::string_view text, const std::string& where);
std::string print_corpus_document(const CorpusDocument& document);  // one line with its end

}  // namespace cepe::data
