#include "engine/open.h"

#include <algorithm>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "engine/calibration_text.h"
#include "model/adapter.h"
#include "model/locate.h"
#include "ops/device.h"

namespace cepe::engine {
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

std::vector<Path> models_folders(const OpenOptions& options) {
  if (!options.models_folder.empty()) return {options.models_folder};
  return {program_folder() / "../share/cepe/models", program_folder() / "../../../models"};
}

Path cache_folder(const OpenOptions& options) {
  return options.cache_folder.empty() ? base::default_cache_folder() : options.cache_folder;
}

std::string name_of(const Path& path) {
  const Path plain = path.has_filename() ? path : path.parent_path();
  return plain.filename().string();
}

// Not all that load an adapter let another decoder's through: the option is named here, where it is read.
model::Adapter open_adapter(const Path& folder, const model::Decoder& decoder, const model::LoadOptions& load) {
  try {
    return model::load_adapter(folder, decoder, load);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::mismatch || load.allow_mismatch) throw;
    throw Error(ErrorCode::mismatch, error.what() + std::string(", or pass --allow-mismatch to try all the same"));
  }
}

void attach_adapter(Runtime& runtime, const OpenOptions& options, const model::LoadOptions& load) {
  if (options.adapter == "none") runtime.model.adapter.reset();
  runtime.adapter_folder = find_adapter(options);
  if (!runtime.adapter_folder) return;
  const std::string folder = runtime.adapter_folder->string();
  if (!std::filesystem::is_directory(*runtime.adapter_folder)) {
    throw Error(ErrorCode::not_found, "adapter " + folder + ": there is no such folder; `cepe adapter init` makes one");
  }
  base::detail("adapter: " + folder);
  runtime.adapter_trained = model::read_adapter_config(*runtime.adapter_folder).trained;
  runtime.model.adapter = open_adapter(*runtime.adapter_folder, runtime.model.decoder, load);
  if (!runtime.adapter_trained) {
    base::warn(folder + ": this adapter is untrained: it shows speed and memory, the text will not know the documents");
  }
}

void open_store(Runtime& runtime, const OpenOptions& options) {
  if (!runtime.model.adapter) return;
  context::StoreOptions store = options.store;
  store.folder.clear();
  if (options.keeps_chunks && store.max_bytes > 0) {
    store.folder = chunks_folder(cache_folder(options));
    if (options.projection_bytes > 0 && runtime.model.decoder.device().is_cpu()) {
      runtime.projections = std::make_shared<context::ProjectionStore>(
          runtime.model, context::ProjectionStoreOptions{.folder = kept_folder(cache_folder(options)),
                                                         .max_bytes = options.projection_bytes});
    }
  }
  runtime.store = std::make_unique<context::ContextStore>(*runtime.model.adapter, std::move(store));
}

}  // namespace

context::ContextStore& Runtime::context_store() const {
  if (store) return *store;
  throw Error(ErrorCode::invalid_argument,
              "model '" + model_name +
                  "' has no adapter, so nothing can read documents for it. Give one (--adapter FOLDER), or make an "
                  "untrained one with `cepe adapter init`");
}

std::vector<text::Token> Runtime::end_tokens() const {
  std::vector<text::Token> ends;
  ends.reserve(source.decoder.eos.size() + 1);
  for (const int64_t id : source.decoder.eos) ends.push_back(static_cast<text::Token>(id));
  if (tokenizer->eos) ends.push_back(*tokenizer->eos);
  std::sort(ends.begin(), ends.end());
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
  return ends;
}

std::unique_ptr<Runtime> open(const OpenOptions& options) {
  model::LoadOptions load = options.load;
  // Who knows LibTorch writes at::kCUDA, and nothing of it is loaded before a GPU is opened.
  if (!load.device.is_cpu()) load.device = ops::open_device(load.device.str());
  const Path path = model::locate_model(options.model, cache_folder(options));
  base::detail("model: " + path.string());
  auto runtime = std::make_unique<Runtime>(model::open_model(path));
  runtime->model_name = name_of(path);
  // Small things first: a mistake there should not wait for gigabytes.
  runtime->tokenizer = open_tokenizer(options, runtime->source);
  if (!options.calibration.empty()) load.calibration = calibration_windows(options.calibration, *runtime->tokenizer);
  runtime->model = model::load_model(runtime->source, load);
  base::throw_if_interrupted();
  attach_adapter(*runtime, options, load);
  open_store(*runtime, options);
  base::throw_if_interrupted();
  return runtime;
}

Path chunks_folder(const Path& cache_folder) { return cache_folder / "chunks"; }
Path kept_folder(const Path& cache_folder) { return cache_folder / "kept"; }

std::unique_ptr<text::Tokenizer> load_tokenizer_at(const Path& path) {
  if (path.extension() == ".gguf") return text::load_gguf_tokenizer(formats::Checkpoint::open(path));
  try {
    return text::load_tokenizer(path);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::not_found) throw;
    throw Error(error.code(), std::string(error.what()) + "; --tokenizer names a folder or file that has one");
  }
}

std::unique_ptr<text::Tokenizer> open_tokenizer(const OpenOptions& options, const model::ModelSource& source) {
  if (!options.tokenizer.empty()) return load_tokenizer_at(options.tokenizer);
  return source.checkpoint.is_gguf() ? text::load_gguf_tokenizer(source.checkpoint) : load_tokenizer_at(source.path);
}

std::optional<Path> find_adapter(const OpenOptions& options) {
  if (options.adapter == "none") return std::nullopt;
  if (!options.adapter.empty()) return Path(options.adapter);
  if (!options.model.empty()) return std::nullopt;
  for (const Path& place : models_folders(options)) {
    const Path folder = (place / default_adapter).lexically_normal();
    std::error_code none;
    if (std::filesystem::is_directory(folder, none)) return folder;
  }
  return std::nullopt;
}

}  // namespace cepe::engine
