// cepe bench: how fast this machine encodes and decodes, beside what its memory would allow.
#include <ATen/ops/ones.h>
#include <ATen/ops/sum.h>

#include <chrono>
#include <cstdio>
#include <random>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "cli/commands.h"
#include "base/parse_values.h"
#include "cli/runtime.h"
#include "cli/standard_streams.h"
#include "context/chunk.h"
#include "engine/engine.h"

namespace cepe::cli {
namespace {

using base::Json;

struct BenchOptions {
  ModelOptions model;
  std::string contexts = "0,8K,32K,127K";
  int64_t tokens = 32;
  uint64_t seed = 0;
  bool json = false;
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Bytes a second that all threads read together, from a table far larger than the caches; the best of some passes.
double memory_bandwidth() {
  const int64_t values = int64_t{64} << 20;  // 256 MiB of float32
  const at::Tensor table = at::ones({values}, at::kFloat);
  double best = 0;
  for (int pass = 0; pass < 6; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    if (at::sum(table).item<float>() < 0) return 0;
    best = std::max(best, static_cast<double>(table.nbytes()) / seconds_since(start));
  }
  return best;
}

std::vector<text::Token> random_ids(int64_t count, int64_t vocabulary, std::mt19937_64& random) {
  std::uniform_int_distribution<text::Token> any(0, static_cast<text::Token>(vocabulary - 1));
  std::vector<text::Token> ids(static_cast<size_t>(count));
  for (text::Token& id : ids) id = any(random);
  return ids;
}

// Weights that one decoded token reads: all but an embedding table that is not the output's too; the cross-attention's
// only where there is a context.
int64_t weight_bytes_a_token(const model::CepeModel& model, bool has_context) {
  int64_t bytes = model::weight_bytes(model.decoder);
  if (!model.decoder.config.tied) bytes -= model.decoder.embedding.bytes();
  if (!has_context) return bytes;
  for (const auto& block : model.adapter->cross_attention) {
    if (block) bytes += block->query.bytes() + block->output.bytes();
  }
  return bytes;
}

// Bytes of the context that one token reads: kept K and V, else the states once a layer.
int64_t context_bytes_a_token(const model::CepeModel& model, const model::ContextStates& context) {
  int64_t bytes = 0;
  for (const auto& kept : context.kept) bytes += static_cast<int64_t>(kept.keys.nbytes() + kept.values.nbytes());
  if (bytes > 0) return bytes;
  int64_t layers = 0;
  for (const model::CrossAttention* block : model::cross_attention_blocks(model)) layers += block != nullptr;
  for (const at::Tensor& page : context.pages) bytes += static_cast<int64_t>(page.nbytes()) * layers;
  return bytes;
}

Json decode_case(const Runtime& runtime, engine::Engine& engine, const BenchOptions& options, double bandwidth,
                 std::mt19937_64& random) {
  engine::Request request;
  request.prompt = random_ids(16, runtime.source.decoder.vocabulary, random);
  request.max_tokens = options.tokens;
  request.on_step = [](const engine::Step&) { return !base::interrupted(); };
  const engine::Completion completion = engine.generate(request);
  base::throw_if_interrupted();
  const auto further = static_cast<double>(completion.tokens.size()) - 1;
  const double rate = completion.decode_seconds > 0 ? further / completion.decode_seconds : 0;
  const int64_t bytes = weight_bytes_a_token(runtime.model, engine.context().rows > 0) +
                        context_bytes_a_token(runtime.model, engine.context());
  const double bound = bandwidth / static_cast<double>(bytes);
  return {{"context_tokens", engine.context().rows},
          {"tokens_per_second", rate},
          {"first_token_seconds", completion.prefill_seconds},
          {"bytes_per_token", bytes},
          {"bound_tokens_per_second", bound},
          {"ratio", rate / bound}};
}

Json measure(const BenchOptions& options, const CommonOptions& common) {
  const std::vector<int64_t> lengths = base::parse_counts(options.contexts, "--contexts");
  const std::unique_ptr<Runtime> runtime = open_runtime(options.model, common);
  for (const int64_t length : lengths) {
    if (length > 0) runtime->context_store();
  }
  std::mt19937_64 random(options.seed);
  const double bandwidth = memory_bandwidth();
  Json decode = Json::array();
  engine::Engine engine(runtime->model, *runtime->tokenizer, engine_options(options.model));
  for (const int64_t length : lengths) {
    base::detail("bench: " + std::to_string(length) + " context tokens");
    const int64_t vocabulary = runtime->source.decoder.vocabulary;
    engine.set_context({});
    if (length > 0) {
      const auto chunks = context::split(random_ids(length, vocabulary, random), runtime->model.adapter->chunk_size, 0);
      engine.set_context(runtime->context_store().get_or_encode(chunks));
    }
    decode.push_back(decode_case(*runtime, engine, options, bandwidth, random));
  }
  Json result = {{"model", runtime->model_name},
                 {"memory_bandwidth_bytes_per_second", bandwidth},
                 {"decode", decode},
                 {"encode", Json()},
                 {"peak_memory_bytes", base::peak_resident_bytes()}};
  if (!runtime->store) return result;
  const context::StoreCounters& counters = runtime->store->counters();
  if (counters.encoded_tokens > 0) {
    result["encode"] = {{"tokens", counters.encoded_tokens},
                        {"tokens_per_second", static_cast<double>(counters.encoded_tokens) / counters.encode_seconds}};
  }
  return result;
}

std::string bench_text(const Json& result) {
  char line[160];
  std::string text;
  std::snprintf(line, sizeof line, "memory bandwidth  %.1f GB/s\n",
                result.at("memory_bandwidth_bytes_per_second").get<double>() / 1e9);
  text += line;
  if (!result.at("encode").is_null()) {
    std::snprintf(line, sizeof line, "encode            %.0f tokens/s\n",
                  result.at("encode").at("tokens_per_second").get<double>());
    text += line;
  }
  text += "decode at context   tokens/s   bound   ratio   first token\n";
  for (const Json& entry : result.at("decode")) {
    std::snprintf(line, sizeof line, "%17lld %10.1f %7.1f %7.2f %11.2f s\n",
                  static_cast<long long>(entry.at("context_tokens").get<int64_t>()),
                  entry.at("tokens_per_second").get<double>(), entry.at("bound_tokens_per_second").get<double>(),
                  entry.at("ratio").get<double>(), entry.at("first_token_seconds").get<double>());
    text += line;
  }
  return text + "peak memory       " + base::human_bytes(result.at("peak_memory_bytes").get<int64_t>()) + "\n";
}

void bench(const BenchOptions& options, const CommonOptions& common) {
  const Json result = measure(options, common);
  write_output(options.json ? result.dump(1) + "\n" : bench_text(result));
}

}  // namespace

void add_bench(CLI::App& program, CommonOptions& common) {
  const auto options = std::make_shared<BenchOptions>();
  options->model.no_cache = true;  // what comes from disk would not be measured
  CLI::App* command = add_command(
      program, "bench", "Measure encoding and decoding, beside the bound that reading all weights and context sets",
      "cepe bench --adapter smollm2-adapter --contexts 0,8K,32K", common,
      [options, &common] { bench(*options, common); });
  add_model_options(*command, options->model);
  add_attention_options(*command, options->model);
  command->add_option("--contexts", options->contexts, "context tokens (random ids) to decode at")
      ->capture_default_str();
  command->add_option("--tokens", options->tokens, "tokens decoded at each")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 20))
      ->capture_default_str();
  command->add_option("--seed", options->seed, "of the random ids")->capture_default_str();
  command->add_flag("--json", options->json, "one JSON object instead of text");
}

}  // namespace cepe::cli
