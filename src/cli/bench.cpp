// cepe bench: how fast this machine encodes and decodes, beside what its memory would allow.
#include <algorithm>
#include <cstdio>
#include <random>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/parse_values.h"
#include "cli/bench_document.h"
#include "cli/bench_shape.h"
#include "cli/commands.h"
#include "cli/measure.h"
#include "cli/runtime.h"
#include "cli/standard_streams.h"
#include "context/chunk.h"
#include "engine/engine.h"
#include "ops/device.h"

namespace cepe::cli {
namespace {

using base::Json;

constexpr const char* default_contexts = "0,8K,32K,127K";
constexpr const char* default_contexts_above_0 = "8K,32K,127K";

struct BenchOptions {
  ModelOptions model;
  std::string contexts = default_contexts;
  int64_t tokens = 32;
  int64_t sequences = 1;
  bool own_contexts = false;
  bool batch_invariant = false;
  uint64_t seed = 0;
  bool json = false;
  BenchShapeOptions shape;
  BenchDocumentOptions document;
};

std::vector<text::Token> random_ids(int64_t count, int64_t vocabulary, std::mt19937_64& random) {
  std::uniform_int_distribution<text::Token> any(0, static_cast<text::Token>(vocabulary - 1));
  std::vector<text::Token> ids(static_cast<size_t>(count));
  for (text::Token& id : ids) id = any(random);
  return ids;
}

// All requests together until the last is answered.
std::vector<engine::Completion> answer(engine::Engine& engine, std::vector<engine::Request> requests) {
  std::vector<engine::Completion> found(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].on_finish = [&found, i](const engine::Completion& completion) { found[i] = completion; };
    engine.submit(std::move(requests[i]));
  }
  while (engine.step()) base::throw_if_interrupted();
  return found;
}

// Nothing is counted of these: the first pass loads kernels, and memory is taken that later ones find.
void warm_up(const Runtime& runtime, engine::Engine& engine, std::vector<engine::Request> requests) {
  constexpr int64_t warm_up_tokens = 4;
  for (engine::Request& request : requests) request.max_tokens = std::min(request.max_tokens, warm_up_tokens);
  answer(engine, std::move(requests));
  ops::synchronise(runtime.model.decoder.device());
}

// One context, which all sequences share, or one for each of them.
Json decode_case(const Runtime& runtime, engine::Engine& engine, const BenchOptions& options,
                 const std::vector<engine::ContextPointer>& contexts, std::mt19937_64& random) {
  std::vector<engine::Request> requests(static_cast<size_t>(options.sequences));
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].prompt = random_ids(16, runtime.source.decoder.vocabulary, random);
    requests[i].max_tokens = options.tokens;
    requests[i].context = contexts[i % contexts.size()];
  }
  warm_up(runtime, engine, requests);
  // Its own clocks tell the truth on a GPU too: each step's tokens are read back before the next are asked for.
  double further = 0, seconds = 0, first = 0;
  for (const engine::Completion& completion : answer(engine, std::move(requests))) {
    further += static_cast<double>(completion.tokens.size()) - 1;
    seconds = std::max(seconds, completion.decode_seconds);
    first = std::max(first, completion.prefill_seconds);
  }
  const model::ContextStates& context = *contexts.front();
  const int64_t shared = options.own_contexts ? 1 : options.sequences;
  return {{"context_tokens", context.rows},
          {"sequences", options.sequences},
          {"tokens_per_second", seconds > 0 ? further / seconds : 0},
          {"first_token_seconds", first},
          {"bytes_per_token",
           weight_bytes_a_token(runtime.model, context.rows > 0, context.kept.empty()) / options.sequences +
               context_bytes_a_token(runtime.model, context) / shared}};
}

model::ContextStates encode_random(const Runtime& runtime, int64_t length, std::mt19937_64& random) {
  const std::vector<text::Token> ids = random_ids(length, runtime.source.decoder.vocabulary, random);
  model::ContextStates states =
      runtime.context_store().get_or_encode(context::split(ids, runtime.model.adapter->chunk_size, 0));
  runtime.context_store().flush();  // writing them down beside the work would count against it
  return states;
}

// Decodes at each length. -> what was measured, without its bounds.
Json decode_cases(const Runtime& runtime, const BenchOptions& options, const std::vector<int64_t>& lengths,
                  std::mt19937_64& random) {
  Json cases = Json::array();
  engine::EngineOptions settings = engine_options(options.model);
  settings.max_sequences = options.sequences;
  settings.batch_invariant = options.batch_invariant;
  engine::Engine engine(runtime.model, *runtime.tokenizer, settings);
  for (const int64_t length : lengths) {
    base::detail("bench: " + std::to_string(length) + " context tokens");
    std::vector<engine::ContextPointer> contexts;
    for (int64_t i = 0; i < (options.own_contexts ? options.sequences : 1); ++i)
      contexts.push_back(engine.prepare(length > 0 ? encode_random(runtime, length, random) : model::ContextStates{}));
    cases.push_back(decode_case(runtime, engine, options, contexts, random));
  }
  return cases;
}

void add_bounds(Json& cases, double bandwidth) {
  for (Json& entry : cases) {
    const double bound = bandwidth / entry.at("bytes_per_token").get<double>();
    entry["bound_tokens_per_second"] = bound;
    entry["ratio"] = entry.at("tokens_per_second").get<double>() / bound;
  }
}

Json encode_rate(const context::StoreCounters& before, const context::StoreCounters& after) {
  const int64_t tokens = after.encoded_tokens - before.encoded_tokens;
  if (tokens == 0) return {};
  return {{"tokens", tokens},
          {"tokens_per_second", static_cast<double>(tokens) / (after.encode_seconds - before.encode_seconds)}};
}

Json measure(const BenchOptions& options, const CommonOptions& common) {
  const std::vector<int64_t> lengths = base::parse_counts(options.contexts, "--contexts");
  const std::unique_ptr<Runtime> runtime = open_runtime(options.model, common);
  const at::Device device = runtime->model.decoder.device();
  std::mt19937_64 random(options.seed);
  context::StoreCounters before;
  if (*std::max_element(lengths.begin(), lengths.end()) > 0) {
    constexpr int64_t warm_up_chunks = 16;
    runtime->context_store();  // an error without an adapter, before any work
    encode_random(*runtime, warm_up_chunks * runtime->model.adapter->chunk_size, random);
    before = runtime->store->counters();
  }
  Json decode = decode_cases(*runtime, options, lengths, random);
  Json result = {{"model", runtime->model_name},
                 {"device", device.str()},
                 {"encode", runtime->store ? encode_rate(before, runtime->store->counters()) : Json()},
                 {"peak_memory_bytes", base::peak_resident_bytes()}};
  if (const auto peak = ops::peak_device_bytes(device)) result["peak_device_memory_bytes"] = *peak;
  const double bandwidth = memory_bandwidth(device);  // last: its tables are no part of the peaks
  add_bounds(decode, bandwidth);
  result["memory_bandwidth_bytes_per_second"] = bandwidth;
  result["decode"] = std::move(decode);
  return result;
}

std::string bench_text(const Json& result) {
  char line[160];
  std::string text;
  std::snprintf(line, sizeof line, "memory bandwidth  %.1f GB/s (%s)\n",
                result.at("memory_bandwidth_bytes_per_second").get<double>() / 1e9,
                result.at("device").get<std::string>().c_str());
  text += line;
  if (!result.at("encode").is_null()) {
    std::snprintf(line, sizeof line, "encode            %.0f tokens/s\n",
                  result.at("encode").at("tokens_per_second").get<double>());
    text += line;
  }
  const int64_t sequences = result.at("decode").empty() ? 1 : result.at("decode")[0].at("sequences").get<int64_t>();
  if (sequences > 1) text += "sequences         " + std::to_string(sequences) + ", tokens/s of all together\n";
  text += "decode at context   tokens/s     bound   ratio   first token\n";
  for (const Json& entry : result.at("decode")) {
    std::snprintf(line, sizeof line, "%17lld %10.1f %9.1f %7.3f %11.3f s\n",
                  static_cast<long long>(entry.at("context_tokens").get<int64_t>()),
                  entry.at("tokens_per_second").get<double>(), entry.at("bound_tokens_per_second").get<double>(),
                  entry.at("ratio").get<double>(), entry.at("first_token_seconds").get<double>());
    text += line;
  }
  text += "peak memory       " + base::human_bytes(result.at("peak_memory_bytes").get<int64_t>());
  if (result.contains("peak_device_memory_bytes"))
    text += ", on the GPU " + base::human_bytes(result.at("peak_device_memory_bytes").get<int64_t>());
  return text + "\n";
}

// A shape and a document have no rows without a context.
std::string contexts_above_0(const BenchOptions& options) {
  return options.contexts == default_contexts ? default_contexts_above_0 : options.contexts;
}

void bench_shape(const BenchOptions& options, const CommonOptions& common) {
  BenchShapeOptions shape = options.shape;
  if (options.sequences == 1 && shape.parts == std::vector<std::string>{"batches"})
    throw base::Error(base::ErrorCode::invalid_argument, "--parts batches: of how many? Give --sequences 2 or more");
  shape.contexts = contexts_above_0(options);
  shape.tokens = options.tokens;
  shape.seed = options.seed;
  shape.sequences = options.sequences;
  shape.int8_cache = cache_type(options.model.cache_type) == engine::CacheType::int8;
  const Json result = measure_shape(shape, common);
  write_output(options.json ? result.dump(1) + "\n" : shape_text(result));
}

void bench_document(const BenchOptions& options, const CommonOptions& common) {
  BenchDocumentOptions document = options.document;
  document.tokens = options.tokens;
  const std::vector<int64_t> lengths = base::parse_counts(contexts_above_0(options), "--contexts");
  const Json result = measure_document(document, options.model, common, lengths);
  write_output(options.json ? result.dump(1) + "\n" : document_text(result));
}

void bench(const BenchOptions& options, const CommonOptions& common) {
  if (!options.shape.shape.empty()) return bench_shape(options, common);
  if (!options.document.documents.empty()) return bench_document(options, common);
  const Json result = measure(options, common);
  write_output(options.json ? result.dump(1) + "\n" : bench_text(result));
}

void add_shape_options(CLI::App& command, BenchShapeOptions& options) {
  const char* group = "Random weights";
  CLI::Option* shape = command
                           .add_option("--shape", options.shape,
                                       "instead of a model: random weights of this size (" + shape_names() +
                                           "), at all --contexts: encoding, forward passes, first tokens, decoding")
                           ->group(group);
  for (const char* other :
       {"--model", "--adapter", "--tokenizer", "--calibration", "--allow-mismatch", "--cross-attention",
        "--kept-memory", "--kept-type", "--state-type", "--own-contexts", "--batch-invariant"})
    shape->excludes(other);
  const auto count = [&](const char* name, int64_t& value, const char* help) {
    command.add_option(name, value, help)
        ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
        ->capture_default_str()
        ->group(group)
        ->needs(shape);
  };
  count("--decoder-tokens", options.decoder_tokens, "of a forward pass, all their logits");
  count("--prompt-tokens", options.prompt_tokens, "before a first token");
  count("--row-tokens", options.row_tokens, "in the decoder's cache of each of --sequences");
  count("--runs", options.runs, "whose median is told, after one that does not count");
  command.add_option("--parts", options.parts, "which rows: encode, forward, first, steps, batches (of --sequences)")
      ->delimiter(',')
      ->check(CLI::IsMember({"encode", "forward", "first", "steps", "batches"}))
      ->group(group)
      ->needs(shape);
  command
      .add_flag("--int8-states", options.int8_states,
                "steps and batches over states in 8 bits, as --state-type int8 keeps them")
      ->group(group)
      ->needs(shape);
  command
      .add_flag("!--no-full-attention", options.full_attention, "leave out the decoder that reads everything itself")
      ->group(group)
      ->needs(shape);
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
  add_state_type_option(*command, options->model);
  command
      ->add_option("--contexts", options->contexts,
                   "context tokens (random ids) to decode at; 0 not with --shape or --document")
      ->capture_default_str();
  command->add_option("--tokens", options->tokens, "tokens decoded at each")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 20))
      ->capture_default_str();
  CLI::Option* sequences =
      command
          ->add_option("--sequences", options->sequences, "answers decoded together, over one context that they share")
          ->check(CLI::Range(int64_t{1}, int64_t{1} << 16))
          ->capture_default_str();
  command->add_flag("--own-contexts", options->own_contexts, "a context for each of them")->needs(sequences);
  command->add_flag("--batch-invariant", options->batch_invariant,
                    "each sequence passes alone: the same bits whoever else is there");
  command->add_option("--seed", options->seed, "of the random ids")->check(seed_range())->capture_default_str();
  command->add_flag("--json", options->json, "one JSON object instead of text");
  add_shape_options(*command, options->shape);
  const char* group = "A document";
  CLI::Option* document =
      command
          ->add_option("-d,--document", options->document.documents,
                       "instead of random ids: a file or folder whose first tokens are the context, stored beforehand; "
                       "tells how soon a first question about it is answered, and a further one")
          ->check(not_empty())
          ->group(group)
          ->excludes("--shape")
          ->excludes("--sequences")
          ->excludes("--batch-invariant");
  command->add_option("--question-tokens", options->document.question_tokens, "of a question: what follows the context")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 16))
      ->capture_default_str()
      ->group(group)
      ->needs(document);
  command
      ->add_option("--kept-disk", options->model.kept_disk,
                   "most that K and V in 8 bits may take on disk; they are stored beforehand too")
      ->capture_default_str()
      ->group(group)
      ->needs(document);
}

}  // namespace cepe::cli
