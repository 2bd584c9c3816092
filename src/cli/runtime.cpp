#include "cli/runtime.h"

#include "base/error.h"
#include "base/parse_values.h"
#include "ops/device.h"

namespace cepe::cli {
namespace {

using base::Error;

at::Device open_device(const std::string& name) {
  try {
    return ops::open_device(name);
  } catch (const Error& error) {
    throw Error(error.code(), "--device " + name + ": " + error.what() + "; use --device cpu");
  }
}

// What of the options says which parts are meant; none of it touches a device.
engine::OpenOptions parts_of(const ModelOptions& options) {
  engine::OpenOptions open;
  open.model = options.model;
  open.adapter = options.adapter;
  open.tokenizer = options.tokenizer;
  return open;
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

model::WeightType weight_type(const std::string& dtype) {
  if (dtype == "float32") return model::WeightType::float32;
  if (dtype == "bfloat16") return model::WeightType::bfloat16;
  return model::WeightType::automatic;
}

model::LoadOptions load_options(const ModelOptions& options, const CommonOptions& common) {
  return {weight_type(common.dtype), open_device(common.device), options.allow_mismatch};
}

engine::OpenOptions open_options(const ModelOptions& options, const CommonOptions& common) {
  engine::OpenOptions open = parts_of(options);
  open.load = load_options(options, common);
  open.cache_folder = common.cache();
  open.keeps_chunks = !options.no_cache;
  open.store_bytes = base::parse_bytes(options.cache_size, "--cache-size");
  return open;
}

std::unique_ptr<Runtime> open_runtime(const ModelOptions& options, const CommonOptions& common) {
  return engine::open(open_options(options, common));
}

std::unique_ptr<text::Tokenizer> open_tokenizer(const ModelOptions& options, const model::ModelSource& source) {
  return engine::open_tokenizer(parts_of(options), source);
}

std::optional<base::Path> find_adapter(const ModelOptions& options) { return engine::find_adapter(parts_of(options)); }

}  // namespace cepe::cli
