// cepe encode: documents into the store ahead of the questions about them.
#include <chrono>
#include <cstdio>
#include <iterator>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/parse_values.h"
#include "cli/commands.h"
#include "cli/documents.h"
#include "cli/runtime.h"
#include "cli/standard_streams.h"

namespace cepe::cli {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;

struct EncodeOptions {
  ModelOptions model;
  std::vector<std::string> documents;
  bool json = false;
};

struct EncodingAccount {
  int64_t documents = 0, tokens = 0, chunks = 0, encoded = 0, encoded_tokens = 0;
  double seconds = 0;
};

std::string encoding_line(const EncodingAccount& account) {
  char rate[64] = "";
  if (account.encoded > 0 && account.seconds > 0)
    std::snprintf(rate, sizeof rate, ", %.0f tokens/s", static_cast<double>(account.encoded_tokens) / account.seconds);
  return std::to_string(account.documents) + " documents, " + std::to_string(account.tokens) +
         " tokens: " + std::to_string(account.encoded) + " chunks encoded, " +
         std::to_string(account.chunks - account.encoded) + " found" + rate + "; peak memory " +
         base::human_bytes(base::peak_resident_bytes());
}

// Documents are cut as `generate` cuts them, so that it finds them.
std::vector<context::Chunk> chunks_of(const Runtime& runtime, const std::vector<Document>& documents, int64_t overlap) {
  std::vector<context::Chunk> chunks;
  for (size_t i = 0; i < documents.size(); ++i) {
    base::throw_if_interrupted();
    const std::vector<text::Token> ids = runtime.tokenizer->encode(documents[i].text);
    auto part = context::split(ids, runtime.model.adapter->chunk_size, static_cast<int64_t>(i), overlap);
    std::move(part.begin(), part.end(), std::back_inserter(chunks));
  }
  return chunks;
}

void encode(const EncodeOptions& options, const CommonOptions& common) {
  const bool keeps = !options.model.no_cache && base::parse_bytes(options.model.cache_size, "--cache-size") > 0;
  if (!keeps) {
    throw Error(ErrorCode::invalid_argument, (options.model.no_cache ? "--no-cache" : "--cache-size 0") +
                                                 std::string(": then there is nowhere to keep what is encoded"));
  }
  const std::vector<Document> documents = read_documents(options.documents);
  const std::unique_ptr<Runtime> runtime = open_runtime(options.model, common);
  context::ContextStore& store = runtime->context_store();
  if (!store.keeps_on_disk() && !store.only_reads_disk())  // why, it has said
    throw Error(ErrorCode::io, common.chunks().string() + ": nothing could be kept there; choose another --cache-dir");
  const std::vector<context::Chunk> chunks = chunks_of(*runtime, documents, options.model.chunk_overlap);

  const auto start = std::chrono::steady_clock::now();
  EncodingAccount account;
  account.encoded = store.encode_missing(chunks, names_of(documents));
  account.encoded_tokens = store.counters().encoded_tokens;
  store.flush();
  account.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  account.documents = static_cast<int64_t>(documents.size());
  account.chunks = static_cast<int64_t>(chunks.size());
  for (const context::Chunk& chunk : chunks) account.tokens += static_cast<int64_t>(chunk.ids.size());
  const bool all_was_there = account.encoded == 0 && store.counters().remote.hits == 0;
  if (!store.keeps_on_disk() && !all_was_there)
    throw Error(ErrorCode::io, common.chunks().string() + ": what was encoded could not be kept");
  if (const int64_t chunks_left_out = store.left_out(); chunks_left_out > 0) {
    throw Error(ErrorCode::io, common.chunks().string() + ": another process held or removed the catalogue; " +
                                   std::to_string(chunks_left_out) + " encoded chunks could not be kept; encode again");
  }
  base::notice(encoding_line(account));
  if (!options.json) return;
  const Json result = {{"folder", common.chunks().string()}, {"documents", account.documents},
                       {"tokens", account.tokens},           {"chunks", account.chunks},
                       {"encoded", account.encoded},         {"found", account.chunks - account.encoded},
                       {"seconds", account.seconds}};
  write_output(result.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace

void add_encode(CLI::App& program, CommonOptions& common) {
  const auto options = std::make_shared<EncodeOptions>();
  CLI::App* command = add_command(
      program, "encode", "Encode documents ahead of the questions about them; what is encoded already is left as it is",
      "cepe encode book.txt notes/", common, [options, &common] { encode(*options, common); });
  command->add_option("FILES", options->documents, "files, folders or - (standard input)")->required()->group("Input");
  command->add_flag("--json", options->json, "the counts as one JSON object on standard output");
  add_model_options(*command, options->model);
  add_store_options(*command, options->model);
  add_overlap_option(*command, options->model);
}

}  // namespace cepe::cli
