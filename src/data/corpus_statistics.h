// What a corpus holds, counted from its list of documents; no token is read.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "data/token_corpus.h"

namespace cepe::data {

struct DomainStatistics {
  int64_t documents = 0, tokens = 0, longest = 0;
};

// Documents of `least` tokens up to below twice as many.
struct LengthStatistics {
  int64_t least = 1, documents = 0, tokens = 0;
};

struct CorpusStatistics {
  std::map<std::string, DomainStatistics> domains;
  std::vector<LengthStatistics> lengths;  // powers of two, from that of the shortest document to that of the longest
};

CorpusStatistics corpus_statistics(std::span<const CorpusDocument> documents);

}  // namespace cepe::data
