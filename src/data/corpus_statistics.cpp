#include "data/corpus_statistics.h"

#include <algorithm>
#include <bit>

namespace cepe::data {

CorpusStatistics corpus_statistics(std::span<const CorpusDocument> documents) {
  CorpusStatistics statistics;
  std::map<uint64_t, LengthStatistics> lengths;
  for (const CorpusDocument& document : documents) {
    DomainStatistics& domain = statistics.domains[document.domain];
    ++domain.documents;
    domain.tokens += document.tokens;
    domain.longest = std::max(domain.longest, document.tokens);
    if (document.tokens < 1) continue;
    LengthStatistics& length = lengths[std::bit_width(static_cast<uint64_t>(document.tokens))];
    ++length.documents;
    length.tokens += document.tokens;
  }
  if (lengths.empty()) return statistics;
  for (uint64_t width = lengths.begin()->first; width <= lengths.rbegin()->first; ++width) {
    LengthStatistics length = lengths[width];
    length.least = int64_t{1} << (width - 1);
    statistics.lengths.push_back(length);
  }
  return statistics;
}

}  // namespace cepe::data
