// cepe encode: documents into the store ahead of the questions about them.
#include <chrono>
#include <cstdio>
#include <iterator>
#include <optional>

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
#include "context/projection_store.h"
#include "model/page_projections.h"

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
  std::optional<context::ProjectionCounters> kept;  // --kept-disk
};

std::string encoding_line(const EncodingAccount& account) {
  char rate[64] = "";
  if (account.encoded > 0 && account.seconds > 0)
    std::snprintf(rate, sizeof rate, ", %.0f tokens/s", static_cast<double>(account.encoded_tokens) / account.seconds);
  std::string kept;
  if (account.kept)
    kept = "; K and V of " + std::to_string(account.kept->made) + " made, " + std::to_string(account.kept->read) +
           " found";
  return std::to_string(account.documents) + " documents, " + std::to_string(account.tokens) +
         " tokens: " + std::to_string(account.encoded) + " chunks encoded, " +
         std::to_string(account.chunks - account.encoded) + " found" + rate + kept + "; peak memory " +
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

// Whether K and V of these chunks are to be stored: `generate` looks for them from some size on. Errors:
// invalid_argument where they are more than they may be.
bool keeps_projections(const Runtime& runtime, const std::vector<context::Chunk>& chunks, const std::string& asked) {
  if (!runtime.projections) return false;
  std::vector<int64_t> rows;
  rows.reserve(chunks.size());
  for (const context::Chunk& chunk : chunks) rows.push_back(static_cast<int64_t>(chunk.ids.size()));
  const context::ProjectionStoreOptions& limits = runtime.projections->options();
  const int64_t bytes = model::page_projection_bytes(runtime.model, rows);
  constexpr int64_t most_beside_values = context::record_head_bytes + context::record_alignment;
  const int64_t bytes_on_disk = bytes + std::ssize(rows) * most_beside_values;
  if (bytes_on_disk > limits.max_bytes) {
    throw Error(ErrorCode::invalid_argument,
                "--kept-disk: K and V of these documents take " + base::human_bytes(bytes_on_disk) + ", more than " +
                    base::human_bytes(limits.max_bytes) + ": give it more or fewer documents, or leave it out");
  }
  if (bytes < limits.least_bytes && asked != "auto")
    base::warn("--kept-disk " + asked + ": without effect with documents as short as these, whose K and V take " +
               base::human_bytes(bytes) + ": they are sooner made than looked for");
  return bytes >= limits.least_bytes;
}

using Clock = std::chrono::steady_clock;

// Chunks into the store, and their K and V where those are kept too, while the states are at hand.
void encode_chunks(const Runtime& runtime, const std::vector<context::Chunk>& chunks,
                   const std::vector<std::string>& names, bool keeps_too, EncodingAccount& account) {
  context::ContextStore& store = runtime.context_store();
  const auto start = Clock::now();
  Clock::duration for_kept{};
  const int64_t keep_since = context::wall_clock();
  const auto keep = [&](model::ContextStates states) {
    const auto begun = Clock::now();
    base::throw_if_interrupted();
    runtime.projections->store(std::move(states), keep_since);
    for_kept += Clock::now() - begun;
  };
  account.encoded = store.encode_missing(chunks, names, keeps_too ? keep : context::ContextStore::Use());
  account.encoded_tokens = store.counters().encoded_tokens;
  store.flush();
  account.seconds = std::chrono::duration<double>(Clock::now() - start - for_kept).count();
}

// Until K and V are written. Errors: io where they are not.
context::ProjectionCounters finish_projections(context::ProjectionStore& projections) {
  projections.flush();
  base::throw_if_interrupted();
  const context::ProjectionCounters counters = projections.counters();
  const std::string folder = projections.options().folder.string();
  if (!projections.keeps()) throw Error(ErrorCode::io, folder + ": K and V could not be kept");  // why, it has said
  if (counters.dropped > 0)
    throw Error(ErrorCode::io, folder + ": K and V of " + std::to_string(counters.dropped) +
                                   " chunks could not be kept, since another process held or removed the catalogue, "
                                   "or there was no room; encode again");
  return counters;
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
  const bool keeps_too = keeps_projections(*runtime, chunks, options.model.kept_disk);

  EncodingAccount account;
  encode_chunks(*runtime, chunks, names_of(documents), keeps_too, account);
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
  if (keeps_too) account.kept = finish_projections(*runtime->projections);
  base::notice(encoding_line(account));
  if (!options.json) return;
  Json result = {{"folder", common.chunks().string()}, {"documents", account.documents},
                 {"tokens", account.tokens},           {"chunks", account.chunks},
                 {"encoded", account.encoded},         {"found", account.chunks - account.encoded},
                 {"seconds", account.seconds}};
  if (account.kept) result["kept"] = {{"made", account.kept->made}, {"found", account.kept->read}};
  write_output(result.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace

void add_encode(CLI::App& program, CommonOptions& common) {
  const auto options = std::make_shared<EncodeOptions>();
  CLI::App* command = add_command(
      program, "encode", "Encode documents ahead of the questions about them; what is encoded already is left as it is",
      "cepe encode book.txt notes/", common, [options, &common] { encode(*options, common); });
  command->add_option("FILES", options->documents, "files, folders or - (standard input)")
      ->check(not_empty())
      ->required()
      ->group("Input");
  command->add_flag("--json", options->json, "the counts as one JSON object on standard output");
  add_model_options(*command, options->model);
  add_store_options(*command, options->model);
  add_overlap_option(*command, options->model);
  command
      ->add_option(
          "--kept-disk", options->model.kept_disk,
          "K and V of the documents too, in 8 bits, as `generate` and `chat` look for them on a CPU: most that "
          "all of these may take (\"4G\"; auto: as there); 0: none are made")
      ->capture_default_str()
      ->group("Cross-attention");
}

}  // namespace cepe::cli
