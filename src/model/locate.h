// Where a model named on the command line is. Nothing is ever downloaded: what is missing is named with the command
// that gets it.
#pragma once

#include <string>

#include "base/files.h"

namespace cepe::model {

// "" = the default model in the cache folder, else in base::default_cache_folder(); a path as it is; "org/name" in the
// Hugging Face cache ($HF_HUB_CACHE, $HF_HOME/hub, ~/.cache/huggingface/hub). Errors: not_found, with what gets it.
base::Path locate_model(const std::string& name, const base::Path& cache_folder);

// The default decoder's file, likewise. Errors: not_found.
base::Path default_model(const base::Path& cache_folder);

}  // namespace cepe::model
