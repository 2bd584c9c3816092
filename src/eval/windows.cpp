#include "eval/windows.h"

#include <algorithm>
#include <random>
#include <set>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/progress.h"

namespace cepe::eval {
namespace {

using base::Error;
using base::ErrorCode;
using text::Token;

int64_t longest(const PerplexityOptions& options) {
  return *std::max_element(options.context_tokens.begin(), options.context_tokens.end());
}

void require(bool holds, const std::string& message) {
  if (!holds) throw Error(ErrorCode::invalid_argument, message);
}

// `count` different numbers below `places`, sorted; all of them where there are no more.
std::set<int64_t> draw(int64_t count, int64_t places, std::mt19937_64& random) {
  std::set<int64_t> drawn;
  if (places <= count) {
    for (int64_t i = 0; i < places; ++i) drawn.insert(i);
    return drawn;
  }
  // The remainder, and no std:: distribution: those differ between standard libraries.
  while (static_cast<int64_t>(drawn.size()) < count)
    drawn.insert(static_cast<int64_t>(random() % static_cast<uint64_t>(places)));
  return drawn;
}

std::mt19937_64 generator(uint64_t seed, std::initializer_list<uint64_t> numbers) {
  std::vector<uint32_t> words = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  for (const uint64_t number : numbers) words.push_back(static_cast<uint32_t>(number));
  std::seed_seq seeds(words.begin(), words.end());
  return std::mt19937_64(seeds);
}

// Fisher and Yates; no std::shuffle, which differs between standard libraries.
void shuffle(std::vector<Token>& ids, std::mt19937_64 random) {
  for (size_t left = ids.size(); left > 1; --left) std::swap(ids[left - 1], ids[random() % left]);
}

int64_t room_of(const PerplexityOptions& options) { return options.room > 0 ? options.room : text_before(options); }

constexpr int64_t most = int64_t{1} << 30;

std::string given(const char* option, int64_t value) { return std::string(option) + " " + std::to_string(value); }

void validate_controls(const PerplexityOptions& options) {
  require(options.other >= 1 && options.other <= most, given("--other", options.other) + ": must be at least 1");
  require(options.other == 1 || options.source == ContextSource::other,
          given("--other", options.other) + ": which other document is asked only where the context is another's");
  require(options.skipped_tokens >= 0 && options.skipped_tokens <= most,
          given("--skip-nearest", options.skipped_tokens) + ": must be from 0 to 2^30");
  require(options.direct_tokens >= 0 && options.direct_tokens <= most,
          given("--direct-tokens", options.direct_tokens) + ": must be from 0 to 2^30");
  require(options.room == 0 || options.room >= text_before(options),
          given("--room", options.room) + ": must be at least " + std::to_string(text_before(options)) +
              ", the longest context with the skipped and the direct tokens, or 0 for so many");
  require(options.room <= 4 * most, given("--room", options.room) + ": must be at most 2^32");
}

// The length that a document must have, as a sum.
std::string needed_of(const PerplexityOptions& options) {
  std::string sum = given("--decoder-tokens", options.decoder_tokens);
  if (options.room > 0) return sum + " + " + given("--room", options.room);
  sum += " + " + given("--context-tokens", longest(options));
  if (options.skipped_tokens > 0) sum += " + " + given("--skip-nearest", options.skipped_tokens);
  if (options.direct_tokens > 0) sum += " + " + given("--direct-tokens", options.direct_tokens);
  return sum;
}

bool are_one_text(const WindowSet& set) {
  return std::all_of(set.digests.begin(), set.digests.end(), [&](const auto& one) { return one == set.digests[0]; });
}

}  // namespace

ContextSource context_source(const std::string& name) {
  if (name == "own") return ContextSource::own;
  if (name == "other") return ContextSource::other;
  if (name == "shuffled") return ContextSource::shuffled;
  throw Error(ErrorCode::invalid_argument, "--context '" + name + "': known are own, other, shuffled");
}

int64_t text_before(const PerplexityOptions& options) {
  return longest(options) + options.skipped_tokens + options.direct_tokens;
}

void validate(const PerplexityOptions& options) {
  require(options.decoder_tokens >= 2 && options.decoder_tokens <= most,
          given("--decoder-tokens", options.decoder_tokens) + ": must be from 2 to 2^30");
  require(options.target_tokens >= 1 && options.target_tokens < options.decoder_tokens,
          given("--target-tokens", options.target_tokens) + ": must be at least 1 and less than --decoder-tokens (" +
              std::to_string(options.decoder_tokens) + "), so that each has a token before it");
  require(!options.context_tokens.empty(), "--context-tokens: at least one length is needed");
  for (const int64_t length : options.context_tokens)
    require(length >= 0 && length <= most, given("--context-tokens", length) + ": must be from 0 to 2^30");
  require(options.samples >= 1 && options.samples <= most,
          given("--samples", options.samples) + ": must be at least 1");
  require(options.documents >= 0, given("--documents", options.documents) + ": must be at least 1, or 0 for all");
  validate_controls(options);
}

void draw_windows(const std::string& id, std::span<const Token> tokens, const PerplexityOptions& options,
                  std::optional<Token> beginning, WindowSet& set) {
  const auto room = static_cast<size_t>(room_of(options)), context = static_cast<size_t>(longest(options));
  const auto direct = static_cast<size_t>(options.direct_tokens);
  const size_t own = static_cast<size_t>(options.decoder_tokens) - (beginning ? 1 : 0);
  const int64_t number = set.documents + set.too_short;
  set.longest = std::max(set.longest, static_cast<int64_t>(tokens.size()));
  if (tokens.size() < room + own) {
    ++set.too_short;
    return;
  }
  std::mt19937_64 random = generator(options.seed, {static_cast<uint64_t>(number)});
  for (const int64_t place : draw(options.samples, static_cast<int64_t>(tokens.size() - room - own) + 1, random)) {
    const size_t start = static_cast<size_t>(place) + room;
    const std::span<const Token> before = tokens.subspan(start - static_cast<size_t>(text_before(options)), context);
    const std::span<const Token> read = tokens.subspan(start - direct, direct + own);
    Window window = {set.documents, {before.begin(), before.end()}, {}};
    if (beginning) window.decoder.push_back(*beginning);
    window.decoder.insert(window.decoder.end(), read.begin(), read.end());
    set.windows.push_back(std::move(window));
  }
  set.ids.push_back(id);
  set.digests.push_back(base::sha256(std::as_bytes(tokens)));
  ++set.documents;
}

WindowSet draw_windows(data::DocumentReader& reader, const text::Tokenizer& tokenizer,
                       const PerplexityOptions& options) {
  validate(options);
  const std::optional<Token> beginning = tokenizer.adds_bos ? tokenizer.bos : std::nullopt;
  WindowSet set;
  base::Progress progress("Reading documents", options.documents, "documents");
  while (options.documents == 0 || set.documents < options.documents) {
    base::throw_if_interrupted();
    const std::optional<data::Document> document = reader.next();
    if (!document) break;
    const int64_t before = set.documents;
    draw_windows(document->id, tokenizer.encode(document->text), options, beginning, set);
    progress.advance(set.documents - before);
  }
  const std::string needed = std::to_string(room_of(options) + options.decoder_tokens) + " tokens";
  require(set.documents + set.too_short > 0, "there are no documents in the texts");
  require(set.documents > 0 || set.longest > 0,
          "the texts are empty: there is no token in any of their " + std::to_string(set.too_short) + " documents");
  require(set.documents > 0, "no document has the " + needed + " needed (" + needed_of(options) + "); the longest of " +
                                 std::to_string(set.too_short) + " has " + std::to_string(set.longest) +
                                 ". Give longer texts or smaller numbers");
  require(options.source != ContextSource::other || set.documents > options.other,
          "the context of another document, " + std::to_string(options.other) + " further on, needs at least " +
              std::to_string(options.other + 1) + " documents of " + needed + "; there are " +
              std::to_string(set.documents));
  require(options.source != ContextSource::other || !are_one_text(set),
          "the context of another document: all " + std::to_string(set.documents) +
              " documents long enough are the same text; give others with it");
  return set;
}

std::vector<context::Chunk> chunks_before(std::span<const Token> ids, int64_t tokens, int64_t chunk_size) {
  require(chunk_size >= 1, "chunk size " + std::to_string(chunk_size) + ": must be at least 1");
  require(tokens >= 0 && static_cast<size_t>(tokens) <= ids.size(),
          "a context of " + std::to_string(tokens) + " tokens from a text of " + std::to_string(ids.size()));
  std::span<const Token> rest = ids.last(static_cast<size_t>(tokens));
  const auto size = static_cast<size_t>(chunk_size);
  std::vector<context::Chunk> chunks;
  while (!rest.empty()) {
    const size_t count = rest.size() % size == 0 ? size : rest.size() % size;  // only the first is short
    context::Chunk chunk;
    chunk.ids.assign(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(count));
    chunks.push_back(std::move(chunk));
    rest = rest.subspan(count);
  }
  return chunks;
}

WindowContexts::WindowContexts(const WindowSet& set, const PerplexityOptions& options, int64_t chunk_size)
    : set_(&set), source_(options.source), other_(options.other), chunk_size_(chunk_size), seed_(options.seed) {
  for (size_t i = 0; i < set.windows.size(); ++i) by_document_[set.windows[i].document].push_back(i);
}

int64_t WindowContexts::lender_to(int64_t document) const {
  const auto digest = [this](int64_t of) { return set_->digests[static_cast<size_t>(of)]; };
  int64_t lender = (document + other_) % set_->documents;
  for (int64_t i = 1; i < set_->documents && digest(lender) == digest(document); ++i)
    lender = (lender + 1) % set_->documents;
  return lender;
}

std::span<const Token> WindowContexts::text(size_t window) const {
  if (source_ != ContextSource::other) return set_->windows[window].context;
  const int64_t document = set_->windows[window].document;
  const std::vector<size_t>& siblings = by_document_.at(document);
  const std::vector<size_t>& others = by_document_.at(lender_to(document));
  return set_->windows[others[(window - siblings.front()) % others.size()]].context;
}

std::vector<context::Chunk> WindowContexts::chunks(size_t window, int64_t tokens) const {
  std::vector<context::Chunk> chunks = chunks_before(text(window), tokens, chunk_size_);
  if (source_ != ContextSource::shuffled) return chunks;
  for (size_t i = 0; i < chunks.size(); ++i) shuffle(chunks[i].ids, generator(seed_, {window, chunks.size() - i}));
  return chunks;
}

}  // namespace cepe::eval
