// GGUF metadata in the terms of config.json, so that one reader a family serves both. Tensor-free.
// What only the tensors tell (tied embeddings, gemma's norms with 1 added, rope_freqs) is the loader's.
#pragma once

#include <string>

#include "base/json.h"

namespace cepe::model {

// metadata: keys as in the file ("llama.block_count"). Errors: unsupported (architecture or feature, by name), corrupt
// (a field missing or of the wrong type).
base::Json gguf_to_config(const base::Json& metadata, const std::string& where);

}  // namespace cepe::model
