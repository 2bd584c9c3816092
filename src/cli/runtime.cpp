#include "cli/runtime.h"

#include <unistd.h>

#include <array>
#include <climits>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/parse_values.h"
#include "context/redis_tier.h"
#include "model/adapter.h"
#include "model/locate.h"
#include "ops/device.h"

namespace cepe::cli {
namespace {

using base::Error;
using base::ErrorCode;
using base::Path;

constexpr const char* default_adapter = "smollm2-135m-instruct-cepe";

Path program_folder() {
  std::error_code problem;
  const Path program = std::filesystem::read_symlink("/proc/self/exe", problem);
  return problem ? Path(".") : program.parent_path();
}

std::string name_of(const Path& path) {
  const Path plain = path.has_filename() ? path : path.parent_path();
  return plain.filename().string();
}

at::Device open_device(const std::string& name) {
  try {
    return ops::open_device(name);
  } catch (const Error& error) {
    throw Error(error.code(), "--device " + name + ": " + error.what() + "; use --device cpu");
  }
}

void attach_adapter(Runtime& runtime, const ModelOptions& options, const model::LoadOptions& load) {
  if (options.adapter == "none") runtime.model.adapter.reset();
  runtime.adapter_folder = find_adapter(options);
  if (!runtime.adapter_folder) return;
  if (!std::filesystem::is_directory(*runtime.adapter_folder)) {
    throw Error(ErrorCode::not_found, "--adapter " + runtime.adapter_folder->string() +
                                          ": there is no such folder; `cepe adapter init` makes one");
  }
  runtime.adapter_trained = model::read_adapter_config(*runtime.adapter_folder).trained;
  runtime.model.adapter = model::load_adapter(*runtime.adapter_folder, runtime.model.decoder, load);
}

context::RedisAddress remote_address(const ModelOptions& options) {
  try {
    return context::parse_redis_address(options.remote_store);
  } catch (const Error& error) {
    throw Error(error.code(), std::string("--remote-store: ") + error.what());
  }
}

void open_store(Runtime& runtime, const ModelOptions& options, const CommonOptions& common) {
  if (!runtime.model.adapter) return;
  context::StoreOptions store;
  store.max_bytes = base::parse_bytes(options.cache_size, "--cache-size");
  if (!options.no_cache && store.max_bytes > 0) store.folder = common.chunks();
  store.host_bytes = base::parse_bytes(options.host_cache, "--host-cache");
  store.device_bytes = base::parse_bytes(options.device_cache, "--device-cache");
  if (options.state_type == "bfloat16") store.type = context::StateType::bfloat16;
  if (options.state_type == "int8") store.type = context::StateType::int8;
  if (!options.remote_store.empty() && !options.no_cache) {
    store.remote = context::open_redis(remote_address(options));
  }
  store.write_behind = true;  // an answer need not wait for the disk
  runtime.store = std::make_unique<context::ContextStore>(*runtime.model.adapter, std::move(store));
}

}  // namespace

void add_model_options(CLI::App& command, ModelOptions& options) {
  const char* group = "Model";
  command
      .add_option("-m,--model", options.model,
                  "folder, .gguf file, or org/name in the Hugging Face cache [SmolLM2-135M-Instruct]")
      ->group(group);
  command
      .add_option("-a,--adapter", options.adapter,
                  "folder with encoder and cross-attention, or none [the one that comes with the default model]")
      ->group(group);
  command
      .add_option("--tokenizer", options.tokenizer, "folder, tokenizer.json, tokenizer.model or .gguf [the model's]")
      ->group(group);
  command.add_flag("--allow-mismatch", options.allow_mismatch, "take an adapter that was made for another decoder")
      ->group(group);
}

void add_store_options(CLI::App& command, ModelOptions& options) {
  const char* group = "Encoded chunks";
  command.add_flag("--no-cache", options.no_cache, "neither read nor keep encoded chunks on disk")->group(group);
  command.add_option("--cache-size", options.cache_size, "most they may take there; the oldest go first")
      ->capture_default_str()
      ->group(group);
  command.add_option("--host-cache", options.host_cache, "most they may take in memory between requests")
      ->capture_default_str()
      ->group(group);
  command.add_option("--device-cache", options.device_cache, "the same on the GPU, taken at once")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--state-type", options.state_type,
                  "how they are kept: bfloat16, int8 (half the bytes, nearly the same answers); auto: bfloat16, or "
                  "float32 with --dtype float32")
      ->check(CLI::IsMember({"auto", "bfloat16", "int8"}))
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--remote-store", options.remote_store,
                  "a server that several machines share: redis://host[:port][/database] or redis+unix:///path")
      ->group(group);
}

void add_overlap_option(CLI::App& command, ModelOptions& options) {
  command
      .add_option("--chunk-overlap", options.chunk_overlap,
                  "tokens at the end of a chunk that the next one reads again")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group("Encoded chunks");
}

void add_attention_options(CLI::App& command, ModelOptions& options) {
  const char* group = "Cross-attention";
  command
      .add_option("--cross-attention", options.cross_attention,
                  "how it is computed: projected (K and V of one layer at a time), absorbed (over the encoder's states "
                  "as they are), kept (K and V of all layers in memory); auto: the cheapest. All give the same result")
      ->check(CLI::IsMember({"auto", "projected", "absorbed", "kept"}))
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--kept-memory", options.kept_memory,
                  "most that kept K and V may take with auto (\"2G\", 0: never); auto: 40 % of free memory")
      ->capture_default_str()
      ->group(group);
}

engine::EngineOptions engine_options(const ModelOptions& options) {
  engine::EngineOptions engine;
  if (options.cross_attention == "projected") engine.path = model::CrossAttentionPath::projected;
  if (options.cross_attention == "absorbed") engine.path = model::CrossAttentionPath::absorbed;
  if (options.cross_attention == "kept") engine.path = model::CrossAttentionPath::kept;
  if (options.kept_memory != "auto") engine.kept_bytes = base::parse_bytes(options.kept_memory, "--kept-memory");
  return engine;
}

context::ContextStore& Runtime::context_store() const {
  if (store) return *store;
  throw Error(ErrorCode::invalid_argument,
              "--document: model '" + model_name +
                  "' has no adapter, so nothing can read documents for it. Give one with --adapter FOLDER, make an "
                  "untrained one with `cepe adapter init`, or let the decoder alone read the text with --prompt-file");
}

model::WeightType weight_type(const std::string& dtype) {
  if (dtype == "float32") return model::WeightType::float32;
  if (dtype == "bfloat16") return model::WeightType::bfloat16;
  return model::WeightType::automatic;
}

std::optional<Path> find_adapter(const ModelOptions& options) {
  if (options.adapter == "none") return std::nullopt;
  if (!options.adapter.empty()) return Path(options.adapter);
  if (!options.model.empty()) return std::nullopt;
  for (const char* place : {"../share/cepe/models", "../../../models"}) {
    const Path folder = (program_folder() / place / default_adapter).lexically_normal();
    std::error_code none;
    if (std::filesystem::is_directory(folder, none)) return folder;
  }
  return std::nullopt;
}

model::LoadOptions load_options(const ModelOptions& options, const CommonOptions& common) {
  return {weight_type(common.dtype), open_device(common.device), options.allow_mismatch};
}

std::unique_ptr<text::Tokenizer> load_tokenizer_at(const Path& path) {
  if (path.extension() != ".gguf") return text::load_tokenizer(path);
  return text::load_gguf_tokenizer(formats::Checkpoint::open(path));
}

std::unique_ptr<text::Tokenizer> open_tokenizer(const ModelOptions& options, const model::ModelSource& source) {
  if (!options.tokenizer.empty()) return load_tokenizer_at(options.tokenizer);
  return source.checkpoint.is_gguf() ? text::load_gguf_tokenizer(source.checkpoint) : text::load_tokenizer(source.path);
}

std::unique_ptr<Runtime> open_runtime(const ModelOptions& options, const CommonOptions& common) {
  const model::LoadOptions load = load_options(options, common);
  if (!options.remote_store.empty()) remote_address(options);
  const Path path = model::locate_model(options.model, common.cache());
  base::detail("model: " + path.string());
  auto runtime = std::make_unique<Runtime>(Runtime{model::open_model(path), {}, nullptr, name_of(path), {}, true, {}});
  // Small things first: a mistake there should not wait for gigabytes.
  runtime->tokenizer = open_tokenizer(options, runtime->source);
  runtime->model = model::load_model(runtime->source, load);
  base::throw_if_interrupted();
  attach_adapter(*runtime, options, load);
  if (runtime->adapter_folder) base::detail("adapter: " + runtime->adapter_folder->string());
  if (!runtime->adapter_trained) {
    base::warn(runtime->adapter_folder->string() +
               ": this adapter is untrained: it shows speed and memory, the text will not know the documents");
  }
  open_store(*runtime, options, common);
  base::throw_if_interrupted();
  return runtime;
}

}  // namespace cepe::cli
