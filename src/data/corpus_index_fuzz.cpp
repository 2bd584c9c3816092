// A corpus' folder comes from strangers: an input is corpus.json, or documents.jsonl where it starts with a newline.
#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "data/corpus_index.h"
#include "data/corpus_statistics.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cepe::data;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  try {
    if (input.starts_with('\n')) {
      const auto documents = parse_corpus_documents(input.substr(1), "documents.jsonl");
      corpus_statistics(documents);
      int64_t first = 0;
      for (const CorpusDocument& document : documents) {
        if (document.first != first || document.tokens < 0) std::abort();
        first += document.tokens;
      }
    } else {
      const CorpusIndex index = parse_corpus_index(input, "corpus.json");
      if (parse_corpus_index(print_corpus_index(index), "again").tokens != index.tokens) std::abort();
    }
  } catch (const cepe::base::Error& error) {
    if (!error.is_users()) throw;  // a defect of ours, not of the file
  }
  return 0;
}
