// A GGUF decoder's tensors under the names, in the row orders and with the config.json of its Hugging Face folder.
#pragma once

#include <memory>
#include <vector>

#include "formats/checkpoint.h"
#include "model/load.h"

namespace cepe::model {

struct GgufConversion {
  std::vector<formats::NamedTensor> tensors;  // views into the source's file or into `held`
  std::vector<std::vector<std::byte>> held;
  base::Json config;
};

// What the config.json of a decoder says that was read from a GGUF file and is written as a folder, its weights in
// `type`. Errors: unsupported (rope factors that no config.json can state).
base::Json hugging_face_config(const ModelSource& source, formats::DType type);

// Blocks become `block_type` (float32 or bfloat16); dense tensors keep their type. Errors: unsupported (rope factors
// that no config.json can state), out_of_memory with figures before anything is dequantised.
GgufConversion convert_gguf(const ModelSource& source, formats::DType block_type);

}  // namespace cepe::model
