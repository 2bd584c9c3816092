// Adapter folders: config.json + adapter.safetensors (published weight names) that belong to one decoder.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/json.h"
#include "model/cepe_model.h"
#include "model/load.h"

namespace cepe::model {

inline constexpr const char* adapter_model_type = "cepe_adapter";
inline constexpr int64_t adapter_format_version = 1;  // counts up where a folder means something else

struct AdapterConfig {
  EncoderConfig encoder;
  std::vector<int64_t> cross_attention_layers;  // sorted, decoder layers
  int64_t chunk_size = 256;
  base::Json decoder;  // what it knows of its decoder (decoder_identity.h); null where the folder says nothing
  bool trained = true;
};

// Errors: corrupt (field by name), not_found, unsupported (a LoRA/PEFT folder, another format_version).
AdapterConfig read_adapter_config(const base::Path& folder);

// The adapter for this decoder. Errors: those of read_adapter_config; mismatch (both names) unless
// options.allow_mismatch, and always for layers or shared embeddings that the decoder has not; not_found with the list
// of missing tensors; corrupt for one of another shape.
Adapter load_adapter(const base::Path& folder, const Decoder& decoder, const LoadOptions& options);

// Writes the folder, which is made where it is missing: float32 or bfloat16 weights as they are, or int8 rows (value =
// weight * weight_scale[row], norms float32). Errors: unsupported for an adapter that was loaded packed; those of
// formats::write_safetensors.
struct SaveOptions {
  bool int8_rows = false;
  bool trained = true;
  std::string decoder_name;  // for people: in messages about a wrong decoder
};
void save_adapter(const base::Path& folder, const Adapter& adapter, const Decoder& decoder, const SaveOptions& options);

}  // namespace cepe::model
