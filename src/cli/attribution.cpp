#include "cli/attribution.h"

#include <algorithm>
#include <cstdio>
#include <numeric>

#include "base/printable.h"

namespace cepe::cli {
namespace {

using base::Json;

constexpr size_t excerpt_tokens = 16, documents_told = 20, chunks_told = 5;

// Names of the documents, and of what comes behind them where there is such a thing.
std::vector<std::string> names_of(const std::vector<Document>& documents, const std::vector<context::Chunk>& chunks,
                                  size_t pages) {
  std::vector<std::string> names;
  names.reserve(documents.size() + 1);
  for (const Document& document : documents) names.push_back(document.name);
  const auto beyond = [&](const context::Chunk& chunk) {
    return chunk.document >= static_cast<int64_t>(documents.size());
  };
  if (pages > chunks.size() || std::any_of(chunks.begin(), chunks.end(), beyond)) names.emplace_back();
  return names;
}

std::vector<size_t> most_first(const std::vector<double>& masses) {
  std::vector<size_t> order(masses.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return masses[a] > masses[b]; });
  return order;
}

std::string shown_name(const std::string& name) {
  return name.empty() ? "(the conversation itself)" : base::printable(name);
}

std::string one_line(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < ' '; }, ' ');
  return text;
}

}  // namespace

Attribution attribution_of(const engine::Completion& completion, const std::vector<context::Chunk>& chunks,
                           const std::vector<Document>& documents, const text::Tokenizer& tokenizer) {
  size_t pages = 0;
  for (const auto& masses : completion.page_masses) pages = std::max(pages, masses.size());
  Attribution found;
  if (pages == 0) return found;
  found.documents = names_of(documents, chunks, pages);
  found.document_masses.resize(found.documents.size());
  std::vector<int64_t> counts(found.documents.size());
  for (size_t page = 0; page < pages; ++page) {
    Attribution::ChunkShare share;
    share.document = static_cast<int64_t>(found.documents.size()) - 1;
    if (page < chunks.size()) {
      const std::vector<text::Token>& ids = chunks[page].ids;
      share.document = std::min(share.document, chunks[page].document);
      share.tokens = static_cast<int64_t>(ids.size());
      share.text = tokenizer.decode(std::span(ids).first(std::min(ids.size(), excerpt_tokens)));
    }
    share.chunk = counts[static_cast<size_t>(share.document)]++;
    found.chunks.push_back(std::move(share));
  }
  const auto reading = std::count_if(completion.page_masses.begin(), completion.page_masses.end(),
                                     [](const auto& masses) { return !masses.empty(); });
  for (const auto& masses : completion.page_masses) {
    std::vector<double>& by_document = found.by_token.emplace_back(found.documents.size());
    for (size_t page = 0; page < masses.size(); ++page) {
      const double mean = static_cast<double>(masses[page]) / static_cast<double>(reading);
      found.chunks[page].mass += mean;
      found.document_masses[static_cast<size_t>(found.chunks[page].document)] += mean;
      by_document[static_cast<size_t>(found.chunks[page].document)] += static_cast<double>(masses[page]);
    }
  }
  return found;
}

Json attribution_json(const Attribution& attribution) {
  Json documents = Json::array(), chunks = Json::array();
  for (size_t i = 0; i < attribution.documents.size(); ++i) {
    const std::string& name = attribution.documents[i];
    documents.push_back({{"document", name.empty() ? Json() : Json(name)}, {"mass", attribution.document_masses[i]}});
  }
  for (const Attribution::ChunkShare& share : attribution.chunks) {
    chunks.push_back({{"document", share.document},
                      {"chunk", share.chunk},
                      {"tokens", share.tokens},
                      {"mass", share.mass},
                      {"begins", share.text}});
  }
  return {{"documents", documents}, {"chunks", chunks}, {"by_token", attribution.by_token}};
}

std::string attribution_text(const Attribution& attribution) {
  if (attribution.documents.empty()) return "leaned on no context\n";
  std::string text = "leaned on\n";
  char number[32];
  const std::vector<size_t> documents = most_first(attribution.document_masses);
  const size_t told = std::min(documents.size(), documents_told);
  double rest = 1;
  for (size_t i = 0; i < told; ++i) {
    const double mass = attribution.document_masses[documents[i]];
    std::snprintf(number, sizeof number, "%6.1f %%  ", 100 * mass);
    text += number + shown_name(attribution.documents[documents[i]]) + "\n";
    rest -= mass;
  }
  if (told < documents.size()) {
    std::snprintf(number, sizeof number, "%6.1f %%  ", 100 * std::max(rest, 0.0));
    text += number + std::to_string(documents.size() - told) + " further documents together\n";
  }
  std::vector<double> masses;
  for (const Attribution::ChunkShare& share : attribution.chunks) masses.push_back(share.mass);
  const std::vector<size_t> order = most_first(masses);
  for (size_t i = 0; i < std::min(order.size(), chunks_told); ++i) {
    const Attribution::ChunkShare& share = attribution.chunks[order[i]];
    std::snprintf(number, sizeof number, "%6.1f %%  ", 100 * share.mass);
    text += number + shown_name(attribution.documents[static_cast<size_t>(share.document)]) + ", chunk " +
            std::to_string(share.chunk + 1) + (share.text.empty() ? "" : ": " + base::printable(one_line(share.text))) +
            "\n";
  }
  return text;
}

}  // namespace cepe::cli
