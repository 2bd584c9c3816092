#include "eval/perplexity.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <map>
#include <random>
#include <set>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/memory.h"
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

// Where a window's context comes from: itself, or the window of the same number of the next document (of the first,
// after the last; the numbers start anew where that document has fewer).
class Contexts {
 public:
  Contexts(const WindowSet& set, ContextSource source) : set_(set), source_(source) {
    for (size_t i = 0; i < set.windows.size(); ++i) by_document_[set.windows[i].document].push_back(i);
  }

  std::span<const Token> of(size_t index) const {
    const Window& window = set_.windows[index];
    if (source_ == ContextSource::own) return window.context;
    const std::vector<size_t>& siblings = by_document_.at(window.document);
    const std::vector<size_t>& others = by_document_.at((window.document + 1) % set_.documents);
    return set_.windows[others[(index - siblings.front()) % others.size()]].context;
  }

 private:
  const WindowSet& set_;
  ContextSource source_;
  std::map<int64_t, std::vector<size_t>> by_document_;
};

}  // namespace

ContextSource context_source(const std::string& name) {
  if (name == "own") return ContextSource::own;
  if (name == "other") return ContextSource::other;
  throw Error(ErrorCode::invalid_argument, "context '" + name + "': known are own, other");
}

void validate(const PerplexityOptions& options) {
  const auto given = [](const char* name, int64_t value) { return std::string(name) + " " + std::to_string(value); };
  constexpr int64_t most = int64_t{1} << 30;
  require(options.decoder_tokens >= 2 && options.decoder_tokens <= most,
          given("decoder-tokens", options.decoder_tokens) + ": must be from 2 to 2^30");
  require(options.target_tokens >= 1 && options.target_tokens < options.decoder_tokens,
          given("target-tokens", options.target_tokens) + ": must be at least 1 and less than decoder-tokens (" +
              std::to_string(options.decoder_tokens) + "), so that each has a token before it");
  require(!options.context_tokens.empty(), "context-tokens: at least one length is needed");
  for (const int64_t length : options.context_tokens)
    require(length >= 0 && length <= most, given("context-tokens", length) + ": must be from 0 to 2^30");
  require(options.samples >= 1 && options.samples <= most, given("samples", options.samples) + ": must be at least 1");
  require(options.documents >= 0, given("documents", options.documents) + ": must be at least 1, or 0 for all");
}

void draw_windows(std::span<const Token> ids, const PerplexityOptions& options, std::optional<Token> beginning,
                  WindowSet& set) {
  const auto context = static_cast<size_t>(longest(options));
  const size_t own = static_cast<size_t>(options.decoder_tokens) - (beginning ? 1 : 0);
  const int64_t number = set.documents + set.too_short;
  if (ids.size() < context + own) {
    ++set.too_short;
    return;
  }
  std::seed_seq seeds = {static_cast<uint32_t>(options.seed), static_cast<uint32_t>(options.seed >> 32),
                         static_cast<uint32_t>(number)};
  std::mt19937_64 random(seeds);
  for (const int64_t place : draw(options.samples, static_cast<int64_t>(ids.size() - context - own) + 1, random)) {
    const std::span<const Token> before = ids.subspan(static_cast<size_t>(place), context);
    const std::span<const Token> text = ids.subspan(static_cast<size_t>(place) + context, own);
    Window window = {set.documents, {before.begin(), before.end()}, {}};
    if (beginning) window.decoder.push_back(*beginning);
    window.decoder.insert(window.decoder.end(), text.begin(), text.end());
    set.windows.push_back(std::move(window));
  }
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
    draw_windows(tokenizer.encode(document->text), options, beginning, set);
    progress.advance(set.documents - before);
  }
  const int64_t needed = longest(options) + options.decoder_tokens;
  require(set.documents > 0, "no document has the " + std::to_string(needed) +
                                 " tokens that the longest context and the window need (" +
                                 std::to_string(set.too_short) + " documents read)");
  require(set.documents > 1 || options.source == ContextSource::own,
          "the context of another document needs at least two documents of " + std::to_string(needed) +
              " tokens; there is one");
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

double PerplexityResult::perplexity() const { return std::exp(nll); }

PerplexityResult measure_perplexity(const WindowSet& set, int64_t context_tokens, const PerplexityOptions& options,
                                    int64_t chunk_size, const Scorer& score) {
  const auto start = std::chrono::steady_clock::now();
  const Contexts contexts(set, options.source);
  std::vector<DocumentLoss> losses(static_cast<size_t>(set.documents));
  base::Progress progress("Context of " + std::to_string(context_tokens), static_cast<int64_t>(set.windows.size()),
                          "windows");
  for (size_t i = 0; i < set.windows.size(); ++i) {
    base::throw_if_interrupted();
    const Window& window = set.windows[i];
    const std::vector<context::Chunk> chunks = chunks_before(contexts.of(i), context_tokens, chunk_size);
    const std::vector<float> values = score(chunks, window.decoder, options.target_tokens);
    DocumentLoss& loss = losses.at(static_cast<size_t>(window.document));
    for (const float value : values) loss.nll -= static_cast<double>(value);
    loss.tokens += static_cast<int64_t>(values.size());
    if (static_cast<int64_t>(values.size()) != options.target_tokens || !std::isfinite(loss.nll)) {
      throw Error(ErrorCode::internal, "scores of a window: " + std::to_string(options.target_tokens) +
                                           " finite values expected, " + std::to_string(values.size()) + " given");
    }
    progress.advance(1);
  }
  PerplexityResult result;
  result.context_tokens = context_tokens;
  double total = 0;
  for (const DocumentLoss& loss : losses) total += loss.nll, result.tokens += loss.tokens;
  result.nll = total / static_cast<double>(result.tokens);
  result.standard_error = standard_error(losses);
  result.documents = set.documents;
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  result.peak_memory_bytes = base::peak_resident_bytes();
  return result;
}

std::optional<double> standard_error(std::span<const DocumentLoss> documents) {
  if (documents.size() < 2) return std::nullopt;
  double nll = 0, tokens = 0, squares = 0;
  for (const DocumentLoss& document : documents) nll += document.nll, tokens += static_cast<double>(document.tokens);
  for (const DocumentLoss& document : documents) {
    const double apart = document.nll - nll / tokens * static_cast<double>(document.tokens);
    squares += apart * apart;
  }
  const auto count = static_cast<double>(documents.size());
  return std::sqrt(count / (count - 1) * squares) / tokens;
}

base::OrderedJson to_json(const PerplexityResult& result) {
  base::OrderedJson line = {{"context_tokens", result.context_tokens},
                            {"perplexity", result.perplexity()},
                            {"nll", result.nll},
                            {"stderr", nullptr},
                            {"tokens", result.tokens},
                            {"documents", result.documents},
                            {"seconds", result.seconds},
                            {"peak_memory_bytes", result.peak_memory_bytes}};
  if (result.standard_error) line["stderr"] = *result.standard_error;
  return line;
}

std::string table_head() {
  return " context  perplexity      nll   stderr    tokens  documents    seconds  peak memory\n";
}

std::string table_row(const PerplexityResult& result) {
  std::array<char, 160> line{};
  std::array<char, 32> error = {"-"};
  if (result.standard_error) std::snprintf(error.data(), error.size(), "%.4f", *result.standard_error);
  std::snprintf(line.data(), line.size(), "%8lld  %10.3f  %7.4f  %7s  %8lld  %9lld  %9.1f  %11s\n",
                static_cast<long long>(result.context_tokens), result.perplexity(), result.nll, error.data(),
                static_cast<long long>(result.tokens), static_cast<long long>(result.documents), result.seconds,
                base::human_bytes(result.peak_memory_bytes).c_str());
  return line.data();
}

}  // namespace cepe::eval
