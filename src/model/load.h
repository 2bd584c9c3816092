// From files to models: Hugging Face folders and GGUF files alike, published CEPE folders, adapter folders.
// Whatever loads weights throws base::Interrupted after Ctrl-C, before the next layer.
#pragma once

#include <optional>
#include <string>

#include "base/files.h"
#include "formats/checkpoint.h"
#include "model/cepe_model.h"
#include "model/masked_language_model.h"
#include "model/weight_names.h"
#include "model/weight_reader.h"

namespace cepe::model {

// Where a model's parts are, read without its weights.
struct ModelSource {
  base::Path path;  // folder or .gguf file
  formats::Checkpoint checkpoint;
  base::Json config;  // config.json, or what GGUF's metadata says in its terms
  DecoderConfig decoder;
  DecoderNames names;
  // A published CEPE folder holds encoder and cross-attention too.
  std::optional<EncoderConfig> encoder;
  std::vector<int64_t> cross_attention_layers;
};

// Errors: not_found (what was looked for), corrupt, unsupported (a LoRA/PEFT folder, by name), invalid_argument (an
// adapter, an encoder of stage mlm).
ModelSource open_model(const base::Path& path);

// Errors: not_found with the list of missing tensors; corrupt for one of another shape than the configuration has;
// out_of_memory on a CPU, before anything is read, with figures.
Decoder load_decoder(const ModelSource& source, const LoadOptions& options);

// The decoder and, for a published CEPE folder, its adapter. Errors: as load_decoder.
CepeModel load_model(const ModelSource& source, const LoadOptions& options);

// LlamaForMLM folder. Errors: those of open_model for its configuration; not_found and corrupt as load_decoder.
MaskedLanguageModel load_masked_language_model(const base::Path& folder, const LoadOptions& options);

// Bytes of all tensors as they stand in the files.
int64_t stored_bytes(const formats::Checkpoint& checkpoint);

// Encoder weights under `prefix`. Its embedding comes from `decoder` where the config shares it, else that may be
// nullptr. Missing tensors of these two are told by reader.finish(); corrupt for one of another shape.
Encoder load_encoder(WeightReader& reader, const EncoderConfig& config, const std::string& prefix,
                     const Decoder* decoder);
CrossAttention load_cross_attention(WeightReader& reader, const DecoderConfig& decoder, int64_t encoder_width,
                                    int64_t layer);

}  // namespace cepe::model
