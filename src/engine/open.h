// From a name to a model that answers, in one call: decoder, adapter, tokenizer and the store of encoded chunks. The
// program opens models here, and so does whoever embeds the library (examples/embed.cpp).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/files.h"
#include "context/context_store.h"
#include "context/projection_store.h"
#include "model/cepe_model.h"
#include "model/load.h"
#include "text/tokenizer.h"

namespace cepe::engine {

struct OpenOptions {
  std::string model;         // "": the default model; a folder, a .gguf file, "org/name" in the Hugging Face cache
  std::string adapter;       // "": the default one, for the default model only; "none"; a folder
  std::string tokenizer;     // "": the model's own; a folder or file
  model::LoadOptions load;   // types of the weights, device (opened if it is not yet), adapters of another decoder
  base::Path calibration;    // with fp8, a text file on which rounding is calibrated; "": to the nearest
  base::Path cache_folder;   // models and encoded chunks; "": base::default_cache_folder()
  base::Path models_folder;  // adapters that ship; "": share/cepe/models of an installed program, models/ of a build.
                             // What links cepe::cepe has the installed one as CEPE_MODELS
  bool keeps_chunks = true;  // on disk, in cache_folder/chunks
  context::StoreOptions store;  // budgets and tiers; its folder is set by `keeps_chunks`, max_bytes 0: none is kept
  // Most that keys and values of the chunks may take in cache_folder/kept, for EngineOptions::projections. 0: none are
  // kept there, as where chunks are not.
  int64_t projection_bytes = 0;
};

// Stays where it is: the store and engines refer to the model.
struct Runtime {
  explicit Runtime(model::ModelSource opened) : source(std::move(opened)) {}
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  model::ModelSource source;
  model::CepeModel model;
  std::unique_ptr<text::Tokenizer> tokenizer;
  std::string model_name;                    // file or folder name, for people
  std::optional<base::Path> adapter_folder;  // none: no adapter, or one inside the model's own folder
  bool adapter_trained = true;
  std::unique_ptr<context::ContextStore> store;           // there where the model has an adapter
  std::shared_ptr<context::ProjectionStore> projections;  // there on a CPU where they are to be kept

  // Errors: invalid_argument, saying what to do, where there is no adapter.
  context::ContextStore& context_store() const;
  // Ids that end an answer, in order: the configuration's, and the tokenizer's own.
  std::vector<text::Token> end_tokens() const;
};

// An untrained adapter is warned of. Errors: not_found (model, adapter), invalid_argument (a calibration text that is
// too short), and those of ops::open_device, open_model, load_model, load_adapter, load_tokenizer; base::Interrupted.
std::unique_ptr<Runtime> open(const OpenOptions& options);

// Where encoded chunks are kept on disk, and their keys and values.
base::Path chunks_folder(const base::Path& cache_folder);
base::Path kept_folder(const base::Path& cache_folder);

// The parts, for those who need no weights.

// A folder's, a file's or a GGUF file's tokenizer. Errors: not_found, corrupt, unsupported.
std::unique_ptr<text::Tokenizer> load_tokenizer_at(const base::Path& path);
// options.tokenizer, else the model's own.
std::unique_ptr<text::Tokenizer> open_tokenizer(const OpenOptions& options, const model::ModelSource& source);
// The adapter's folder: as given; else the one shipped for the default model. Nothing: none is wanted or there.
std::optional<base::Path> find_adapter(const OpenOptions& options);

}  // namespace cepe::engine
