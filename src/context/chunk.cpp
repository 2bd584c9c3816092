#include "context/chunk.h"

#include <algorithm>

#include "base/error.h"

namespace cepe::context {
namespace {

using Ids = std::span<const text::Token>;

void require_at_least(const char* what, int64_t value, int64_t least) {
  if (value < least) {
    throw base::Error(base::ErrorCode::invalid_argument, std::string(what) + " is " + std::to_string(value) +
                                                             "; it must be at least " + std::to_string(least));
  }
}

struct Cut {
  int64_t size, overlap;
};

void require_sensible(const Cut& cut) {
  require_at_least("chunk size", cut.size, 1);
  require_at_least("the overlap of chunks", cut.overlap, 0);
  if (cut.overlap >= cut.size) {
    throw base::Error(base::ErrorCode::invalid_argument,
                      "chunks of " + std::to_string(cut.size) + " tokens cannot overlap by " +
                          std::to_string(cut.overlap) + "; give --chunk-overlap at most " +
                          std::to_string(cut.size - 1));
  }
}

void append_chunks(std::vector<Chunk>& chunks, Ids ids, const Cut& cut, int64_t document) {
  for (size_t first = 0; first < ids.size(); first += static_cast<size_t>(cut.size - cut.overlap)) {
    const Ids part = ids.subspan(first, std::min(static_cast<size_t>(cut.size), ids.size() - first));
    chunks.push_back({{part.begin(), part.end()}, document});
    if (first + part.size() == ids.size()) return;  // another one would hold nothing new
  }
}

void append_documents(std::vector<Chunk>& chunks, std::span<const std::vector<text::Token>> documents, const Cut& cut) {
  for (size_t i = 0; i < documents.size(); ++i) append_chunks(chunks, documents[i], cut, static_cast<int64_t>(i));
}

// Ids [keep, keep + what does not fit) of `text` go to the encoder as chunks of `document`, the others to the decoder.
void divide(Arrangement& arrangement, Ids text, size_t window, size_t keep, const Cut& cut, int64_t document) {
  const size_t moved = text.size() > window ? text.size() - window : 0;
  if (moved == 0) keep = 0;
  append_chunks(arrangement.chunks, text.subspan(keep, moved), cut, document);
  const Ids kept = text.first(keep), recent = text.subspan(keep + moved);
  arrangement.decoder.assign(kept.begin(), kept.end());
  arrangement.decoder.insert(arrangement.decoder.end(), recent.begin(), recent.end());
  arrangement.moved = static_cast<int64_t>(moved);
}

}  // namespace

std::vector<Chunk> split(Ids ids, int64_t chunk_size, int64_t document, int64_t overlap) {
  const Cut cut{chunk_size, overlap};
  require_sensible(cut);
  std::vector<Chunk> chunks;
  append_chunks(chunks, ids, cut, document);
  return chunks;
}

ChunkKey key_of(Ids ids, const base::Digest& encoder_fingerprint) {
  base::Sha256 hash;  // the fingerprint has one length, so that it and the ids cannot be mistaken for one another
  hash.update(encoder_fingerprint);
  hash.update_values(ids);
  return hash.finish();
}

Arrangement arrange(const std::vector<std::vector<text::Token>>& documents, const std::vector<text::Token>* prompt,
                    int64_t decoder_tokens, int64_t chunk_size, int64_t keep_first, int64_t overlap) {
  require_at_least("the decoder's window", decoder_tokens, 1);
  const Cut cut{chunk_size, overlap};
  require_sensible(cut);
  require_at_least("the number of first tokens kept", keep_first, 0);
  const auto window = static_cast<size_t>(decoder_tokens);
  Arrangement arrangement;
  if (prompt) {
    if (prompt->empty()) throw base::Error(base::ErrorCode::invalid_argument, "the prompt is empty");
    append_documents(arrangement.chunks, documents, cut);
    // The newest token always has a place: it is what the decoder goes on from.
    const size_t keep = std::min(static_cast<size_t>(keep_first), window - 1);
    divide(arrangement, *prompt, window, keep, cut, static_cast<int64_t>(documents.size()));
    return arrangement;
  }
  size_t count = documents.size();  // empty documents at the end have no end to read
  while (count > 0 && documents[count - 1].empty()) --count;
  if (count == 0) {
    throw base::Error(base::ErrorCode::invalid_argument,
                      "nothing to read: there is no prompt, and no document holds a token; give one of them");
  }
  append_documents(arrangement.chunks, std::span(documents).first(count - 1), cut);
  divide(arrangement, documents[count - 1], window, 0, cut, static_cast<int64_t>(count - 1));
  return arrangement;
}

}  // namespace cepe::context
