#include "cli/bench_document.h"

#include <algorithm>
#include <cstdio>
#include <span>

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "cli/documents.h"
#include "cli/measure.h"
#include "context/chunk.h"

namespace cepe::cli {
namespace {

using base::Json;
using Tokens = std::vector<text::Token>;

size_t text_bytes(const std::vector<Document>& documents) {
  size_t bytes = 0;
  for (const Document& document : documents) bytes += document.text.size();
  return bytes;
}

Tokens tokens_of(const Runtime& runtime, const std::vector<Document>& documents) {
  Tokens all;
  for (const Document& document : documents) {
    const Tokens ids = runtime.tokenizer->encode(document.text);
    all.insert(all.end(), ids.begin(), ids.end());
  }
  return all;
}

std::vector<Document> first_bytes_of(const std::vector<Document>& documents, size_t bytes) {
  std::vector<Document> result;
  for (const Document& document : documents) {
    if (bytes == 0) break;
    result.push_back({document.name, document.text.substr(0, bytes)});
    bytes -= result.back().text.size();
  }
  return result;
}

// The documents' beginning that has at least so many tokens, as all of them have: a reader tokenises no more than is
// asked about.
std::vector<Document> beginning_of(const Runtime& runtime, const std::vector<Document>& documents, const Tokens& all,
                                   int64_t tokens) {
  constexpr size_t slack = 256;  // bytes: the last token may come apart where the text ends
  const std::span<const text::Token> wanted(all.data(), static_cast<size_t>(tokens));
  // A tokenizer may have made less of the text than stands there (runs of spaces): then more of it is taken.
  for (size_t bytes = runtime.tokenizer->decode(wanted, false).size() + slack;; bytes *= 2) {
    std::vector<Document> result = first_bytes_of(documents, bytes);
    if (static_cast<int64_t>(tokens_of(runtime, result).size()) >= tokens || bytes >= text_bytes(documents))
      return result;
  }
}

Tokens slice_of(const Tokens& all, int64_t first, int64_t count) {
  return {all.begin() + first, all.begin() + first + count};
}

model::ContextStates context_of(const Runtime& runtime, const Tokens& all, int64_t length) {
  return runtime.context_store().get_or_encode(
      context::split(slice_of(all, 0, length), runtime.model.adapter->chunk_size, 0));
}

engine::EngineOptions engine_settings(const Runtime& runtime, const ModelOptions& model) {
  engine::EngineOptions settings = engine_options(model);
  settings.projections = runtime.projections;
  return settings;
}

engine::Completion ask(engine::Engine& engine, const BenchDocumentOptions& options, const Tokens& all, int64_t length) {
  engine::Request request;
  request.prompt = slice_of(all, length, options.question_tokens);
  request.max_tokens = options.tokens;
  return engine.generate(request);
}

Json measure_length(const Runtime& runtime, const BenchDocumentOptions& options, const ModelOptions& model,
                    const std::vector<Document>& documents, int64_t length) {
  base::detail("bench: " + std::to_string(length) + " context tokens");
  engine::Engine engine(runtime.model, *runtime.tokenizer, engine_settings(runtime, model));
  const std::vector<Document> read =
      beginning_of(runtime, documents, tokens_of(runtime, documents), length + options.question_tokens);
  const Clock clock(runtime.model.decoder.device());
  const Tokens all = tokens_of(runtime, read);
  model::ContextStates states = context_of(runtime, all, length);
  const int64_t rows = states.rows;
  engine.set_context(std::move(states));
  const double prepared = clock.seconds();
  const engine::Completion first = ask(engine, options, all, length);
  const engine::Completion further = ask(engine, options, all, length);
  const double decoded = further.decode_seconds;
  return {{"context_tokens", rows},
          {"question_tokens", options.question_tokens},
          {"first_question_seconds", prepared + first.prefill_seconds},
          {"further_question_seconds", further.prefill_seconds},
          {"tokens_per_second", decoded > 0 ? static_cast<double>(further.tokens.size() - 1) / decoded : 0},
          {"kept", !engine.context().kept.empty()},
          {"peak_memory_bytes", base::peak_resident_bytes()}};
}

// Encoded and written down, where a later process finds it.
void store_documents(const BenchDocumentOptions& options, const ModelOptions& model, const CommonOptions& common,
                     const std::vector<Document>& documents, int64_t longest) {
  const std::unique_ptr<Runtime> runtime = open_runtime(model, common);
  runtime->context_store();  // an error without an adapter, before any work
  const Tokens all = tokens_of(*runtime, documents);
  if (static_cast<int64_t>(all.size()) < longest + options.question_tokens) {
    throw base::Error(base::ErrorCode::invalid_argument,
                      "--document: " + std::to_string(all.size()) + " tokens; --contexts asks for " +
                          std::to_string(longest) + " and a question of " + std::to_string(options.question_tokens) +
                          " after them: give more documents or shorter contexts");
  }
  model::ContextStates states = context_of(*runtime, all, longest);
  runtime->context_store().flush();
  if (runtime->projections)
    engine::Engine(runtime->model, *runtime->tokenizer, engine_settings(*runtime, model))
        .set_context(std::move(states));
}

}  // namespace

Json measure_document(const BenchDocumentOptions& options, const ModelOptions& model, const CommonOptions& common,
                      const std::vector<int64_t>& lengths) {
  ModelOptions stored = model;
  stored.no_cache = false;
  std::vector<int64_t> ascending = lengths;
  std::sort(ascending.begin(), ascending.end());
  if (ascending.front() <= 0)
    throw base::Error(base::ErrorCode::invalid_argument, "--contexts: expected lengths above 0 with --document");
  const std::vector<Document> documents = read_documents(options.documents);
  store_documents(options, stored, common, documents, ascending.back());
  Json result = {{"documents", Json::array()}};
  for (const int64_t length : ascending) {
    const std::unique_ptr<Runtime> runtime = open_runtime(stored, common);
    result["model"] = runtime->model_name;
    result["device"] = runtime->model.decoder.device().str();
    result["documents"].push_back(measure_length(*runtime, options, stored, documents, length));
  }
  return result;
}

std::string document_text(const Json& result) {
  std::string text =
      "context of the document   first question   further question   tokens/s   K, V kept   peak memory\n";
  char line[160];
  for (const Json& entry : result.at("documents")) {
    std::snprintf(line, sizeof line, "%23lld %14.2f s %16.3f s %10.1f %11s   %s\n",
                  static_cast<long long>(entry.at("context_tokens").get<int64_t>()),
                  entry.at("first_question_seconds").get<double>(), entry.at("further_question_seconds").get<double>(),
                  entry.at("tokens_per_second").get<double>(), entry.at("kept").get<bool>() ? "yes" : "no",
                  base::human_bytes(entry.at("peak_memory_bytes").get<int64_t>()).c_str());
    text += line;
  }
  return text;
}

}  // namespace cepe::cli
