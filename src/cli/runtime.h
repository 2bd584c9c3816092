// Everything a command needs to run a model: decoder, adapter, tokenizer and the store of encoded chunks, opened
// together in one place (generate, chat, bench, eval).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/common_options.h"
#include "context/context_store.h"
#include "engine/engine.h"
#include "model/cepe_model.h"
#include "model/load.h"
#include "text/tokenizer.h"

namespace cepe::cli {

struct ModelOptions {
  std::string model;      // "": the default model; a folder, a .gguf file, "org/name" in the Hugging Face cache
  std::string adapter;    // "": the default one where there is one; "none"; a folder
  std::string tokenizer;  // "": the model's own; a folder or file
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
};

// --model, --adapter, --tokenizer, --allow-mismatch.
void add_model_options(CLI::App& command, ModelOptions& options);
// --no-cache, --cache-size, --host-cache, --device-cache, --state-type, --remote-store.
void add_store_options(CLI::App& command, ModelOptions& options);
// --chunk-overlap.
void add_overlap_option(CLI::App& command, ModelOptions& options);

// --cross-attention, --kept-memory; and what they mean to the engine. Errors: invalid_argument, naming the option.
void add_attention_options(CLI::App& command, ModelOptions& options);
engine::EngineOptions engine_options(const ModelOptions& options);

struct Runtime {
  model::ModelSource source;
  model::CepeModel model;
  std::unique_ptr<text::Tokenizer> tokenizer;
  std::string model_name;                    // file or folder name, for people
  std::optional<base::Path> adapter_folder;  // none: no adapter, or one inside the model's own folder
  bool adapter_trained = true;
  std::unique_ptr<context::ContextStore> store;  // there where the model has an adapter

  // Errors: invalid_argument, saying what to do, where there is no adapter.
  context::ContextStore& context_store() const;
};

// On the heap, since the store refers to the model. Errors: as locate_model, load_model, load_adapter, load_tokenizer.
std::unique_ptr<Runtime> open_runtime(const ModelOptions& options, const CommonOptions& common);

model::WeightType weight_type(const std::string& dtype);  // of --dtype

// The parts, for commands that need no weights.
model::LoadOptions load_options(const ModelOptions& options, const CommonOptions& common);
// A folder's, a file's or a GGUF file's tokenizer. Errors: not_found, corrupt, unsupported.
std::unique_ptr<text::Tokenizer> load_tokenizer_at(const base::Path& path);
std::unique_ptr<text::Tokenizer> open_tokenizer(const ModelOptions& options, const model::ModelSource& source);
// The adapter's folder: as given; else the one shipped for the default model (beside the program: ../share/cepe/models
// when installed, ../../../models in a build), for the default model only. Nothing: none is wanted or there.
std::optional<base::Path> find_adapter(const ModelOptions& options);

}  // namespace cepe::cli
