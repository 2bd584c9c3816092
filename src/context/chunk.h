// Chunks: how long texts reach the encoder. Documents are cut on their own, so that they share chunks however they are
// combined.
#pragma once

#include <compare>
#include <span>
#include <string>
#include <vector>

#include "base/hash.h"
#include "text/tokenizer.h"

namespace cepe::context {

struct Chunk {
  std::vector<text::Token> ids;  // 1 to chunk_size tokens; only the last of a document may be short
  int64_t document = 0;          // index of the document it came from
};

// Cuts one document's ids into chunks of at most chunk_size tokens. No token is added. Each chunk but the first begins
// with the last `overlap` tokens of the one before, so that what stands at a border is read with its surroundings once.
// Errors: invalid_argument for a size < 1, an overlap < 0 or not below the size.
std::vector<Chunk> split(std::span<const text::Token> ids, int64_t chunk_size, int64_t document, int64_t overlap = 0);

// SHA-256 of (fingerprint of the encoder's weights, type of the states, format version, ids): a collision would hand
// over somebody else's text.
using ChunkKey = base::Digest;
ChunkKey key_of(std::span<const text::Token> ids, const base::Digest& encoder_fingerprint);

// What the decoder reads itself and what the encoder reads for it.
struct Arrangement {
  std::vector<text::Token> decoder;  // ids of the decoder's window
  std::vector<Chunk> chunks;
  int64_t moved =
      0;  // tokens of the prompt (or of the document's end) that did not fit the window and went to the encoder
};

// With a prompt, documents go to the encoder and the prompt is the decoder's text. Without one (nullopt), the end of
// the last document is the decoder's text. What does not fit `decoder_tokens` moves to the encoder, oldest first (the
// first `keep_first` ids of the prompt, BOS say, stay). `overlap` as in split. Errors: invalid_argument where there is
// nothing to read.
Arrangement arrange(const std::vector<std::vector<text::Token>>& documents, const std::vector<text::Token>* prompt,
                    int64_t decoder_tokens, int64_t chunk_size, int64_t keep_first, int64_t overlap = 0);

}  // namespace cepe::context
