// Under which names a checkpoint keeps a decoder's weights. Names are without ".weight" / ".bias"; empty = the part is
// absent.
#pragma once

#include <string>
#include <vector>

#include "model/config.h"

namespace cepe::model {

struct LayerNames {
  std::string attention_norm;         // before self-attention
  std::string attention_output_norm;  // after it
  std::string feed_forward_norm, feed_forward_output_norm;
  std::vector<std::string> query_key_value;  // {q, k, v}, or one fused matrix
  std::string query_norm, key_norm, output;
  std::vector<std::string> gate_up;  // {gate, up}, or one fused; not gated: {up}
  std::string down;
};

struct DecoderNames {
  std::string embedding, position_embedding, norm, lm_head;
  std::vector<LayerNames> layers;
  bool transposed = false;                   // matrices stand as [in, out] (GPT-2)
  bool interleaved_query_key_value = false;  // fused rows are [H, 3, D] (NeoX) instead of [q; k; v]
  bool permuted_query_key = false;           // GGUF llama: HF row p of a head = row 2p, row p + D/2 = row 2p + 1
};

DecoderNames weight_names(const DecoderConfig& config);       // Hugging Face folder
DecoderNames gguf_weight_names(const DecoderConfig& config);  // GGUF
// Hugging Face folder whose file holds these tensors (sorted): files saved from the bare model lack "model." or
// "transformer.", those of an image-and-text model have "language_model." more. Decided by the embedding's name.
DecoderNames weight_names(const DecoderConfig& config, const std::vector<std::string>& stored);

// "model.layers.N." parts that most families share: {q,k,v,o}_proj, gate/up/down_proj, input and post-attention norms.
DecoderNames llama_names(const DecoderConfig& config);
// "blk.N." parts that GGUF's architectures share, as the config's norms, positions and gate ask for them; {q, k, v}
// apart.
DecoderNames gguf_common_names(const DecoderConfig& config);
// The same with attn_qkv.
DecoderNames gguf_fused_names(const DecoderConfig& config);
// The common names where llama.cpp's `llama` architecture reads them (Llama, Mistral): rows of q and k permuted.
DecoderNames gguf_llama_names(const DecoderConfig& config);

// For families with names of their own: the parts of one layer behind root + "N.", for N = 0 .. layers - 1.
std::vector<LayerNames> numbered_layers(const std::string& root, int64_t layers, const LayerNames& parts);

}  // namespace cepe::model
