// CEPE: a frozen decoder, an encoder that reads the context in chunks, and a cross-attention block in (some of) the
// decoder's layers. The adapter is everything that is trained.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "model/cross_attention.h"
#include "model/decoder.h"
#include "model/encoder.h"

namespace cepe::model {

struct Adapter {
  Encoder encoder;
  std::vector<std::optional<CrossAttention>> cross_attention;  // [L] by decoder layer
  int64_t chunk_size = 256;                                    // tokens a chunk (at most)
};

struct CepeModel {
  Decoder decoder;
  std::optional<Adapter> adapter;
};

// Published names: "encoder.*", "model.layers.N.cross_attn.*".
void visit(Adapter& adapter, const std::function<void(const std::string&, at::Tensor&)>& visitor);

// The decoder-side shape of the heads, the blocks by layer for CrossAttentionInput, and how many there are.
HeadShape head_shape(const DecoderConfig& config);
std::vector<const CrossAttention*> cross_attention_blocks(const CepeModel& model);
int64_t cross_attention_layers(const CepeModel& model);

// Contexts of B sequences from padded chunks: chunks [B, K, S] int64, mask [B, K, S] (non-zero = a real token) or
// undefined. Fully masked chunks are absent; padding leaves no row. -> B contexts, differentiable.
std::vector<ContextStates> encode_chunks(const Encoder& encoder, const at::Tensor& chunks, const at::Tensor& mask);

// Whole model without a cache, as in training: tokens [B, T] -> hidden [B, T, C] after the final norm. Without contexts
// the output is the frozen decoder's, bit for bit.
at::Tensor forward(const CepeModel& model, const at::Tensor& tokens, const std::vector<ContextStates>& contexts,
                   CrossAttentionPath path = CrossAttentionPath::automatic);

// As visit_parameters of the encoder: every trained tensor as it is kept.
void visit_parameters(Adapter& adapter, const std::function<void(at::Tensor&)>& visitor);

}  // namespace cepe::model
