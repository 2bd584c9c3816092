#include "eval/perplexity.h"

#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "base/error.h"
#include "base/hash.h"
#include "base/interrupt.h"
#include "base/memory.h"
#include "base/progress.h"

namespace cepe::eval {
namespace {

using base::Error;
using base::ErrorCode;

void add_scores(std::span<const float> scores, int64_t targets, const std::string& document, DocumentLoss& loss) {
  const auto given = static_cast<int64_t>(scores.size());
  if (given != targets) {
    throw Error(ErrorCode::internal, "scores of a window: " + std::to_string(targets) + " values expected, " +
                                         std::to_string(given) + " given");
  }
  for (const float score : scores) loss.nll -= static_cast<double>(score);
  loss.tokens += given;
  if (!std::isfinite(loss.nll)) {
    throw Error(ErrorCode::corrupt,
                "document '" + document +
                    "': its scores are not finite numbers, so weights of the decoder or the adapter, or encoded "
                    "chunks, are damaged; `cepe store verify` checks the chunks");
  }
}

// By document, 64 bits of the SHA-256 of the ids of all its targets: whether two runs scored the same.
std::vector<std::string> digests_of_targets(const WindowSet& set, int64_t targets) {
  std::vector<base::Sha256> hashes(static_cast<size_t>(set.documents));
  for (const Window& window : set.windows) {
    const std::span<const text::Token> ids(window.decoder);
    hashes.at(static_cast<size_t>(window.document)).update_values(ids.last(static_cast<size_t>(targets)));
  }
  std::vector<std::string> digests;
  digests.reserve(hashes.size());
  for (base::Sha256& hash : hashes) digests.push_back(base::to_hex(hash.finish()).substr(0, 16));
  return digests;
}

}  // namespace

double PerplexityResult::perplexity() const { return std::exp(nll); }

PerplexityResult measure_perplexity(const WindowSet& set, int64_t context_tokens, const PerplexityOptions& options,
                                    int64_t chunk_size, const Scorer& score) {
  const auto start = std::chrono::steady_clock::now();
  const WindowContexts contexts(set, options, chunk_size);
  std::vector<DocumentLoss> losses(static_cast<size_t>(set.documents));
  base::Progress progress("Context of " + std::to_string(context_tokens), static_cast<int64_t>(set.windows.size()),
                          "windows");
  for (size_t i = 0; i < set.windows.size(); ++i) {
    base::throw_if_interrupted();
    const Window& window = set.windows[i];
    const std::vector<context::Chunk> chunks = contexts.chunks(i, context_tokens);
    const auto document = static_cast<size_t>(window.document);
    add_scores(score(chunks, window.decoder, options.target_tokens), options.target_tokens, set.ids.at(document),
               losses.at(document));
    progress.advance(1);
  }
  PerplexityResult result;
  result.context_tokens = context_tokens;
  const std::vector<std::string> targets = digests_of_targets(set, options.target_tokens);
  double total = 0;
  for (size_t i = 0; i < losses.size(); ++i) {
    total += losses[i].nll, result.tokens += losses[i].tokens;
    result.by_document.push_back(
        {set.ids[i], losses[i].nll / static_cast<double>(losses[i].tokens), losses[i].tokens, targets[i]});
  }
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

base::OrderedJson to_json(const PerplexityResult& result, bool by_document) {
  base::OrderedJson line = {{"context_tokens", result.context_tokens},
                            {"perplexity", result.perplexity()},
                            {"nll", result.nll},
                            {"stderr", nullptr},
                            {"tokens", result.tokens},
                            {"documents", result.documents},
                            {"seconds", result.seconds},
                            {"peak_memory_bytes", result.peak_memory_bytes}};
  if (result.standard_error) line["stderr"] = *result.standard_error;
  if (!by_document) return line;
  line["by_document"] = base::OrderedJson::array();
  for (const DocumentNll& document : result.by_document)
    line["by_document"].push_back(
        {{"id", document.id}, {"nll", document.nll}, {"tokens", document.tokens}, {"targets", document.targets}});
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
