// Models from nothing: every matrix N(0, 0.02) and every norm one, as the published code starts them.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "model/cepe_model.h"
#include "model/config.h"
#include "model/decoder.h"
#include "model/masked_language_model.h"
#include "ops/packed_format.h"

namespace cepe::model {

// In the type and at the place of `options`, drawn there; which numbers these are depends on both, and on the seed.
// With `format`, each layer's products are quantised (quantise.h) before the next layer is drawn.
// Errors: unsupported for families other than Llama-like ones (RMSNorm first, gated, no biases).
Decoder random_decoder(const DecoderConfig& config, uint64_t seed, at::TensorOptions options = at::kFloat,
                       std::optional<ops::PackedFormat> format = {});
Encoder random_encoder(const EncoderConfig& config, uint64_t seed, at::TensorOptions options = at::kFloat);
// With cross-attention in `layers` of that decoder.
Adapter random_adapter(const DecoderConfig& decoder, const EncoderConfig& encoder, const std::vector<int64_t>& layers,
                       uint64_t seed, at::TensorOptions options = at::kFloat,
                       std::optional<ops::PackedFormat> format = {});
// The head's output is tied to the embedding.
MaskedLanguageModel random_masked_language_model(const EncoderConfig& config, uint64_t seed);

}  // namespace cepe::model
