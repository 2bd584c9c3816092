// The options with which commands open a model (generate, chat, bench, eval): engine/open.h does it.
#pragma once

#include <c10/core/Device.h>

#include <memory>
#include <optional>
#include <string>

#include "cli/common_options.h"
#include "engine/engine.h"
#include "engine/open.h"

namespace cepe::cli {

struct ModelOptions {
  std::string model;        // "": the default model; a folder, a .gguf file, "org/name" in the Hugging Face cache
  std::string adapter;      // "": the default one where there is one; "none"; a folder
  std::string tokenizer;    // "": the model's own; a folder or file
  std::string calibration;  // "": weights are rounded to the nearest; a text file
  bool allow_mismatch = false;
  bool no_cache = false;
  std::string cache_size = "8G";
  std::string host_cache = "0";     // most that encoded chunks may take in host memory between requests
  std::string device_cache = "0";   // the same on the device
  std::string state_type = "auto";  // auto, bfloat16, int8
  std::string remote_store;         // address of a server, or none
  int64_t chunk_overlap = 0;
  std::string cross_attention = "auto";  // how it is computed: auto, projected, absorbed, kept
  std::string kept_memory = "auto";      // most that kept K and V may take: bytes, or 40 % of free memory
  std::string kept_type = "auto";        // how they are kept: auto, bfloat16, int8
  std::string kept_disk = "0";           // most that they may take on disk: bytes, or auto
  std::string cache_type = "auto";       // of the self-attention cache: auto, int8
};

// --model, --adapter, --tokenizer, --calibration, --allow-mismatch.
void add_model_options(CLI::App& command, ModelOptions& options);
// --no-cache, --cache-size, --host-cache, --device-cache, --state-type, --remote-store.
void add_store_options(CLI::App& command, ModelOptions& options);
void add_state_type_option(CLI::App& command, ModelOptions& options);  // one of them
// --chunk-overlap.
void add_overlap_option(CLI::App& command, ModelOptions& options);

// --cross-attention, --kept-memory, --kept-type, --cache-type; and what they mean to the engine. Errors:
// invalid_argument, naming the option.
void add_attention_options(CLI::App& command, ModelOptions& options);
void add_kept_disk_option(CLI::App& command, ModelOptions& options);   // --kept-disk, of those that answer; auto
void add_cache_type_option(CLI::App& command, ModelOptions& options);  // one of them
engine::KeptType kept_type(const std::string& name);                   // of --kept-type
engine::CacheType cache_type(const std::string& name);                 // of --cache-type
engine::EngineOptions engine_options(const ModelOptions& options);

using engine::load_tokenizer_at;
using engine::Runtime;

// --device. Errors: those of ops::open_device, naming the option.
at::Device open_device(const std::string& name);

// The options as the library takes them, with the device opened. Errors: those of open_device; invalid_argument.
engine::OpenOptions open_options(const ModelOptions& options, const CommonOptions& common);
std::unique_ptr<Runtime> open_runtime(const ModelOptions& options, const CommonOptions& common);

model::WeightType weight_type(const std::string& dtype);  // of --dtype

// The parts, for commands that need no weights.
model::LoadOptions load_options(const ModelOptions& options, const CommonOptions& common);
std::unique_ptr<text::Tokenizer> open_tokenizer(const ModelOptions& options, const model::ModelSource& source);
std::optional<base::Path> find_adapter(const ModelOptions& options);

}  // namespace cepe::cli
