// Trained decoders and encoders as Hugging Face folders in safetensors.
#pragma once

#include "base/files.h"
#include "base/json.h"
#include "model/decoder.h"
#include "model/masked_language_model.h"

namespace cepe::model {

// config.json (as given) and the weights under their published names, in the type in which they are kept. Errors:
// unsupported for packed weights, LoRAs not merged, and families whose matrices stand transposed or interleaved.
void save_decoder(const base::Path& folder, const Decoder& decoder, const base::Json& config);

// A LlamaForMLM folder.
void save_masked_language_model(const base::Path& folder, const MaskedLanguageModel& model);

}  // namespace cepe::model
