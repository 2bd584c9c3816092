// New adapters: an encoder of the decoder's own first layers (or random), cross-attention from the decoder's
// self-attention.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "model/cepe_model.h"

namespace cepe::model {

// How cross-attention starts. q from the layer's self-attention, k and v the leading [G*D, E] part of its k and v (E <=
// C), the norm from the norm before the feed-forward block; they differ in o:
//   copy    the self-attention's output projection        zero    zeros
//   normal  Kaiming normal                                 none    everything N(0, 0.02), norm one
//   scaled  q, k, v random with std 1/sqrt(C), o zero, norm one (trains fastest from the decoder's own layers as
//   encoder)
enum class CrossAttentionStart { copy, zero, normal, none, scaled };
CrossAttentionStart cross_attention_start(const std::string& name);  // Errors: invalid_argument, with the names known

// Float32, on the CPU. Errors: invalid_argument where the encoder is wider than the decoder (but for none and scaled).
CrossAttention initialise_cross_attention(const Decoder& decoder, int64_t layer, int64_t encoder_width,
                                          CrossAttentionStart start, uint64_t seed);

struct AdapterShape {
  int64_t encoder_layers = 6;  // the decoder's first layers, made bidirectional, with its embedding table
  std::vector<int64_t> cross_attention_layers;  // decoder layers
  int64_t chunk_size = 256;
  CrossAttentionStart start = CrossAttentionStart::scaled;
  uint64_t seed = 0;
};

// Errors: unsupported where the decoder's layers are no Llama blocks (the encoder is), invalid_argument for layers it
// has not.
Adapter initialise_adapter(const Decoder& decoder, const AdapterShape& shape);
// Errors: invalid_argument for a layer that the decoder has not; `where` begins the message.
void check_layers(std::span<const int64_t> layers, int64_t decoder_layers, const std::string& where);

}  // namespace cepe::model
