// Models from nothing: every matrix N(0, 0.02) and every norm one, as the published code starts them.
#pragma once

#include "model/config.h"
#include "model/decoder.h"
#include "model/masked_language_model.h"

namespace cepe::model {

// float32 on the CPU. Errors: unsupported for families other than Llama-like ones (RMSNorm first, gated, no biases).
Decoder random_decoder(const DecoderConfig& config, uint64_t seed);
Encoder random_encoder(const EncoderConfig& config, uint64_t seed);
// The head's output is tied to the embedding.
MaskedLanguageModel random_masked_language_model(const EncoderConfig& config, uint64_t seed);

}  // namespace cepe::model
