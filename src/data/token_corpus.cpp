#include "data/token_corpus.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/hash.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "data/corpus_index.h"

namespace cepe::data {
namespace {

using base::Error;
using base::ErrorCode;

constexpr size_t verified_at_once = size_t{4} << 20;  // bytes, between two looks at Ctrl-C

[[noreturn]] void fail(const base::Path& file, const std::string& what) {
  throw Error(ErrorCode::corrupt, file.string() + ": " + what);
}

std::string_view text_of(const base::MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

// The largest id, as an unsigned number: one above 2^31 is as wrong as one beyond the vocabulary.
template <class Stored>
uint32_t widen(const std::byte* bytes, std::span<text::Token> out) {
  uint32_t largest = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    Stored id = 0;
    std::memcpy(&id, bytes + i * sizeof(Stored), sizeof(Stored));
    largest = std::max<uint32_t>(largest, id);
    out[i] = static_cast<text::Token>(id);
  }
  return largest;
}

}  // namespace

struct TokenCorpus::State {
  base::Path folder;
  CorpusIndex index;
  std::vector<CorpusDocument> documents;
  std::vector<base::MappedFile> shards;
  std::vector<int64_t> shard_first;  // first token of each shard, and the end of the last

  // Ids of one shard, from token `first` of it.
  void read_shard(size_t shard, int64_t first, std::span<text::Token> out) const {
    const std::byte* bytes = shards[shard].bytes().data() + first * index.bytes_per_id;
    const uint32_t largest = index.bytes_per_id == 2 ? widen<uint16_t>(bytes, out) : widen<uint32_t>(bytes, out);
    if (largest >= static_cast<uint64_t>(index.vocabulary)) {
      fail(shards[shard].path(),
           "token id " + std::to_string(largest) + " is outside the vocabulary of " + std::to_string(index.vocabulary));
    }
  }

  void open_shards() {
    shard_first.push_back(0);
    for (size_t i = 0; i < index.shards.size(); ++i) {
      const base::Path path = folder / shard_name(i);
      shards.emplace_back(path);
      const size_t size = shards.back().bytes().size();
      // A division, since the product could overflow.
      const auto width = static_cast<size_t>(index.bytes_per_id);
      if (size % width != 0 || size / width != static_cast<size_t>(index.shards[i].tokens)) {
        fail(path, std::to_string(size) + " bytes; corpus.json says " + std::to_string(index.shards[i].tokens) +
                       " tokens of " + std::to_string(width) + " bytes");
      }
      shard_first.push_back(shard_first.back() + index.shards[i].tokens);
    }
  }

  void open_documents() {
    const base::Path path = folder / corpus_documents_name;
    const base::MappedFile file(path);
    if (base::to_hex(base::sha256(file.bytes())) != index.documents_sha256)
      fail(path, "its checksum differs from field 'documents_sha256' of corpus.json");
    documents = parse_corpus_documents(text_of(file), path.string());
    const int64_t tokens = documents.empty() ? 0 : documents.back().first + documents.back().tokens;
    if (static_cast<int64_t>(documents.size()) != index.documents || tokens != index.tokens) {
      fail(path, std::to_string(documents.size()) + " documents of " + std::to_string(tokens) +
                     " tokens; corpus.json says " + std::to_string(index.documents) + " of " +
                     std::to_string(index.tokens));
    }
  }
};

TokenCorpus TokenCorpus::open(const base::Path& folder) {
  std::error_code none;
  const base::Path path = folder / corpus_index_name;
  if (!std::filesystem::exists(path, none)) {
    const bool unfinished = std::filesystem::exists(folder / "build.json", none);
    throw Error(
        ErrorCode::not_found,
        folder.string() +
            (unfinished ? ": a corpus whose build is not finished; the same command goes on with it"
                        : ": no corpus here; expected a folder with corpus.json, as `cepe data build` makes it"));
  }
  auto state = std::make_shared<State>();
  state->folder = folder;
  state->index = parse_corpus_index(base::read_file(path, size_t{64} << 20), path.string());
  state->open_documents();
  state->open_shards();
  return TokenCorpus(std::move(state));
}

std::span<const CorpusDocument> TokenCorpus::documents() const { return state_->documents; }
int64_t TokenCorpus::tokens() const { return state_->index.tokens; }
int64_t TokenCorpus::vocabulary() const { return state_->index.vocabulary; }
const CorpusIndex& TokenCorpus::index() const { return state_->index; }

void TokenCorpus::read(int64_t first, std::span<text::Token> out) const {
  const auto count = static_cast<int64_t>(out.size());
  if (first < 0 || count > tokens() || first > tokens() - count) {
    throw Error(ErrorCode::invalid_argument, state_->folder.string() + ": tokens " + std::to_string(first) + " to " +
                                                 std::to_string(first) + " + " + std::to_string(count) +
                                                 " asked for; the corpus has " + std::to_string(tokens()));
  }
  const std::vector<int64_t>& starts = state_->shard_first;
  auto shard = static_cast<size_t>(std::upper_bound(starts.begin(), starts.end(), first) - starts.begin());
  for (; !out.empty(); ++shard) {  // starts[shard] is the end of shard - 1
    const int64_t here = std::min<int64_t>(static_cast<int64_t>(out.size()), starts[shard] - first);
    state_->read_shard(shard - 1, first - starts[shard - 1], out.first(static_cast<size_t>(here)));
    out = out.subspan(static_cast<size_t>(here));
    first += here;
  }
}

void TokenCorpus::verify() const {
  std::vector<text::Token> ids;
  base::Progress progress("verifying", tokens(), "tokens");
  for (size_t i = 0; i < state_->shards.size(); ++i) {
    base::Sha256 hash;
    std::span<const std::byte> bytes = state_->shards[i].bytes();
    int64_t first = 0;
    while (!bytes.empty()) {
      base::throw_if_interrupted();
      const auto piece = bytes.first(std::min(bytes.size(), verified_at_once));
      hash.update(piece);
      ids.resize(piece.size() / static_cast<size_t>(state_->index.bytes_per_id));
      state_->read_shard(i, first, ids);
      first += static_cast<int64_t>(ids.size());
      progress.advance(static_cast<int64_t>(ids.size()));
      bytes = bytes.subspan(piece.size());
    }
    if (base::to_hex(hash.finish()) != state_->index.shards[i].sha256)
      fail(state_->shards[i].path(), "its checksum differs from corpus.json: the file is damaged");
  }
}

}  // namespace cepe::data
