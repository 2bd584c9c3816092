#include "cli/runtime.h"

#include "base/error.h"
#include "base/log.h"
#include "base/parse_values.h"
#include "context/redis_tier.h"
#include "ops/device.h"

namespace cepe::cli {
namespace {

using base::Error;

// What of the options says which parts are meant; none of it touches a device.
engine::OpenOptions parts_of(const ModelOptions& options) {
  engine::OpenOptions open;
  open.model = options.model;
  open.adapter = options.adapter;
  open.tokenizer = options.tokenizer;
  return open;
}

context::RedisAddress remote_address(const ModelOptions& options) {
  try {
    return context::parse_redis_address(options.remote_store);
  } catch (const Error& error) {
    throw Error(error.code(), std::string("--remote-store: ") + error.what());
  }
}

context::StoreOptions store_options(const ModelOptions& options) {
  context::StoreOptions store;
  store.max_bytes = base::parse_bytes(options.cache_size, "--cache-size");
  store.host_bytes = base::parse_bytes(options.host_cache, "--host-cache");
  store.device_bytes = base::parse_bytes(options.device_cache, "--device-cache");
  if (options.state_type == "bfloat16") store.type = context::StateType::bfloat16;
  if (options.state_type == "int8") store.type = context::StateType::int8;
  if (!options.remote_store.empty()) {
    store.remote = context::open_redis(remote_address(options));
  }
  store.write_behind = true;  // an answer need not wait for the disk
  return store;
}

constexpr int64_t most_kept_on_disk = int64_t{4} << 30;

uintmax_t file_bytes_in(const base::Path& folder) {
  std::error_code problem;
  uintmax_t bytes = 0;
  for (std::filesystem::directory_iterator at(folder, problem), end; !problem && at != end; at.increment(problem)) {
    std::error_code gone;
    const uintmax_t size = std::filesystem::file_size(at->path(), gone);
    if (!gone) bytes += size;
  }
  return bytes;
}

// auto: what is kept already counts as free, so that it goes on being used.
int64_t kept_disk_bytes(const ModelOptions& options, const base::Path& cache) {
  if (options.kept_disk != "auto") return base::parse_bytes(options.kept_disk, "--kept-disk");
  std::error_code problem;
  base::Path folder = std::filesystem::absolute(cache, problem);
  while (!std::filesystem::exists(folder, problem) && folder.has_relative_path()) folder = folder.parent_path();
  const std::filesystem::space_info space = std::filesystem::space(folder, problem);
  if (problem) return 0;
  const uintmax_t room = space.available + file_bytes_in(engine::kept_folder(cache));
  return static_cast<int64_t>(std::min<uintmax_t>(room / 4, most_kept_on_disk));
}

// What --kept-disk has no effect beside; "": it has its effect.
std::string useless_beside(const ModelOptions& options, const engine::OpenOptions& open) {
  if (options.no_cache) return "--no-cache";
  if (open.store.max_bytes == 0) return "--cache-size " + options.cache_size;
  if (!open.load.device.is_cpu()) return "a GPU";
  if (options.kept_type == "bfloat16") return "--kept-type bfloat16";
  if (open.load.type == model::WeightType::float32 && options.kept_type == "auto" && options.state_type == "auto")
    return "--dtype float32; --kept-type int8 keeps 8 bits all the same";
  if (options.cross_attention == "absorbed" || options.cross_attention == "projected")
    return "--cross-attention " + options.cross_attention;
  if (options.cross_attention == "auto" && options.kept_memory != "auto" &&
      base::parse_bytes(options.kept_memory, "--kept-memory") == 0)
    return "--kept-memory " + options.kept_memory;
  return "";
}

void set_kept_disk(engine::OpenOptions& open, const ModelOptions& options, const base::Path& cache) {
  const std::string beside = useless_beside(options, open);
  if (beside.empty()) {
    open.projection_bytes = kept_disk_bytes(options, cache);
  } else if (options.kept_disk != "auto" && base::parse_bytes(options.kept_disk, "--kept-disk") > 0) {
    base::warn("--kept-disk " + options.kept_disk + ": without effect with " + beside);
  }
}

}  // namespace

at::Device open_device(const std::string& name) {
  try {
    return ops::open_device(name);
  } catch (const Error& error) {
    throw Error(error.code(), "--device " + name + ": " + error.what() + "; use --device cpu");
  }
}

void add_model_options(CLI::App& command, ModelOptions& options) {
  const char* group = "Model";
  command
      .add_option("-m,--model", options.model,
                  "folder, .gguf file, or org/name in the Hugging Face cache [SmolLM2-135M-Instruct]")
      ->check(not_empty())
      ->group(group);
  command
      .add_option("-a,--adapter", options.adapter,
                  "folder with encoder and cross-attention, or none [the one that comes with the default model]")
      ->check(not_empty())
      ->group(group);
  command
      .add_option("--tokenizer", options.tokenizer, "folder, tokenizer.json, tokenizer.model or .gguf [the model's]")
      ->check(not_empty())
      ->group(group);
  command
      .add_option("--calibration", options.calibration,
                  "with --dtype fp8: a text like those that will be read; weights are rounded so that the model's "
                  "answers over it change least [to the nearest]")
      ->check(not_empty())
      ->group(group);
  command.add_flag("--allow-mismatch", options.allow_mismatch, "take an adapter that was made for another decoder")
      ->group(group);
}

void add_state_type_option(CLI::App& command, ModelOptions& options) {
  command
      .add_option("--state-type", options.state_type,
                  "how they are kept: bfloat16, int8 (half the bytes, nearly the same answers); auto: bfloat16, or "
                  "float32 with --dtype float32")
      ->check(CLI::IsMember({"auto", "bfloat16", "int8"}))
      ->capture_default_str()
      ->group("Encoded chunks");
}

void add_store_options(CLI::App& command, ModelOptions& options) {
  const char* group = "Encoded chunks";
  CLI::Option* no_cache = command.add_flag("--no-cache", options.no_cache, "neither read nor keep encoded chunks");
  no_cache->group(group);
  command.add_option("--cache-size", options.cache_size, "most they may take there; the oldest go first")
      ->capture_default_str()
      ->group(group);
  command.add_option("--host-cache", options.host_cache, "most they may take in memory between requests")
      ->capture_default_str()
      ->group(group);
  command.add_option("--device-cache", options.device_cache, "the same on the GPU, taken at once")
      ->capture_default_str()
      ->group(group);
  add_state_type_option(command, options);
  command
      .add_option("--remote-store", options.remote_store,
                  "a server that several machines share: redis://host[:port][/database] or redis+unix:///path")
      ->group(group)
      ->excludes(no_cache);
}

void add_overlap_option(CLI::App& command, ModelOptions& options) {
  command
      .add_option("--chunk-overlap", options.chunk_overlap,
                  "tokens at the end of a chunk that the next one reads again")
      ->check(not_negative())
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
  command
      .add_option(
          "--kept-type", options.kept_type,
          "how K and V are kept: bfloat16, int8 (on a CPU; half the bytes and faster, nearly the same answers); "
          "auto: int8 on a CPU, bfloat16 on a GPU, float32 with --dtype float32")
      ->check(CLI::IsMember({"auto", "bfloat16", "int8"}))
      ->capture_default_str()
      ->group(group);
  add_cache_type_option(command, options);
}

void add_kept_disk_option(CLI::App& command, ModelOptions& options) {
  options.kept_disk = "auto";
  command
      .add_option("--kept-disk", options.kept_disk,
                  "most that K and V in 8 bits may take on disk, so that the next process need not make them (\"2G\", "
                  "0: none); auto: 4G, and at most a quarter of the disk's free space")
      ->capture_default_str()
      ->group("Cross-attention");
}

void add_cache_type_option(CLI::App& command, ModelOptions& options) {
  command
      .add_option("--cache-type", options.cache_type,
                  "how keys and values of what the decoder itself has read are kept: int8 (half the memory, nearly the "
                  "same answers); auto: bfloat16, or float32 with --dtype float32")
      ->check(CLI::IsMember({"auto", "int8"}))
      ->capture_default_str()
      ->group("Self-attention");
}

engine::CacheType cache_type(const std::string& name) {
  return name == "int8" ? engine::CacheType::int8 : engine::CacheType::automatic;
}

engine::KeptType kept_type(const std::string& name) {
  if (name == "bfloat16") return engine::KeptType::bfloat16;
  return name == "int8" ? engine::KeptType::int8 : engine::KeptType::automatic;
}

engine::EngineOptions engine_options(const ModelOptions& options) {
  engine::EngineOptions engine;
  if (options.cross_attention == "projected") engine.path = model::CrossAttentionPath::projected;
  if (options.cross_attention == "absorbed") engine.path = model::CrossAttentionPath::absorbed;
  if (options.cross_attention == "kept") engine.path = model::CrossAttentionPath::kept;
  if (options.kept_memory != "auto") {
    engine.kept_bytes = base::parse_bytes(options.kept_memory, "--kept-memory");
    if (options.cross_attention != "auto") {
      base::warn("--kept-memory: without effect with --cross-attention " + options.cross_attention +
                 "; it limits what auto keeps");
    }
  }
  engine.kept_type = kept_type(options.kept_type);
  engine.cache_type = cache_type(options.cache_type);
  return engine;
}

model::WeightType weight_type(const std::string& dtype) {
  if (dtype == "float32") return model::WeightType::float32;
  if (dtype == "bfloat16") return model::WeightType::bfloat16;
  if (dtype == "fp8") return model::WeightType::fp8;
  if (dtype == "int8") return model::WeightType::int8;
  if (dtype == "int4") return model::WeightType::int4;
  return model::WeightType::automatic;
}

model::LoadOptions load_options(const ModelOptions& options, const CommonOptions& common) {
  return {weight_type(common.dtype), open_device(common.device), options.allow_mismatch};
}

engine::OpenOptions open_options(const ModelOptions& options, const CommonOptions& common) {
  engine::OpenOptions open = parts_of(options);
  if (!options.calibration.empty() && common.dtype != "fp8") {
    throw Error(
        base::ErrorCode::invalid_argument,
        "--calibration " + options.calibration + ": only --dtype fp8 is calibrated, and --dtype is " + common.dtype);
  }
  open.calibration = options.calibration;
  open.load = load_options(options, common);
  open.cache_folder = common.cache();
  open.keeps_chunks = !options.no_cache;
  open.store = store_options(options);
  set_kept_disk(open, options, common.cache());
  if (open.store.device_bytes > 0 && open.load.device.is_cpu())
    base::warn("--device-cache " + options.device_cache + ": without effect on a CPU; --host-cache keeps chunks there");
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
