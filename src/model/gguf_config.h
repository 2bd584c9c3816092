// GGUF metadata in the terms of config.json, so that one reader a family serves both.
#pragma once

#include <string>

#include "base/json.h"

namespace cepe::model {

// metadata: keys as in the file ("llama.block_count"). Errors: unsupported (architecture, by name), corrupt (field).
base::Json gguf_to_config(const base::Json& metadata, const std::string& where);

}  // namespace cepe::model
