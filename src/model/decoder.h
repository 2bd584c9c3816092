// The decoder: frozen weights of a pretrained language model of any family, and its forward pass. Cross-attention
// blocks, where there are any, are handed in from outside: without them this is exactly the original model.
#pragma once

#include <string>
#include <vector>

#include "model/attention.h"
#include "model/config.h"
#include "model/cross_attention.h"
#include "model/feed_forward.h"
#include "model/layout.h"
#include "model/linear.h"
#include "model/norm.h"

namespace cepe::model {

struct SelfAttention {
  Linear query_key_value;  // rows [q (H*D); k (G*D); v (G*D)], or [H, 3, D] when interleaved
  bool interleaved = false;
  Norm query_norm, key_norm;  // per head [D] or whole [H*D], [G*D]; absent in most families
  Linear output;              // [H*D -> C]
};

struct DecoderLayer {
  Norm attention_norm, attention_output_norm;  // before and after; which are there is the family's residual order
  SelfAttention attention;
  Norm feed_forward_norm, feed_forward_output_norm;
  FeedForward feed_forward;
};

struct Decoder {
  DecoderConfig config;
  Linear embedding;               // [V, C]
  at::Tensor position_embedding;  // [max_positions, C], learned positions only
  std::vector<DecoderLayer> layers;
  Norm norm;
  Linear lm_head;                               // undefined when tied to the embedding
  at::ScalarType activation_type = at::kFloat;  // type of the residual stream

  at::Device device() const;
};

// One pass over a batch.
//   layout: N packed tokens; cache: where keys and values are written and read, or nullptr (every sequence starts at 0)
//   cross: blocks and contexts, empty for the original model
//   recompute: layers' activations are computed again in the backward pass (recompute.h), for training in less memory
// -> hidden states after the final norm [N, C]. Errors: invalid_argument for ids outside the vocabulary, positions
// beyond a learned table, slots beyond the cache; base::Interrupted between layers, where a cache is given and 256 rows
// or more: a text that is read, of which nobody has seen anything yet.
at::Tensor forward(const Decoder& decoder, const BatchLayout& layout, KvCache* cache,
                   const CrossAttentionInput& cross = {}, bool recompute = false);

// Logits of hidden rows [n, C] after the final norm -> [n, V], float32 whatever the type of the product.
at::Tensor logits(const Decoder& decoder, const at::Tensor& hidden);
// What it says, of its output table's products [N, V]: float32, bent towards its cap where it has one.
at::Tensor capped_logits(const DecoderConfig& config, const at::Tensor& products);

// Calls visit(name, tensor) for every dense weight under its canonical (Llama) name, fused ones as views of their
// parts; packed ones are passed over. For counting, training the decoder itself, saving.
void visit(Decoder& decoder, const std::function<void(const std::string&, at::Tensor&)>& visitor);

// Bytes of all weights as they are kept.
int64_t weight_bytes(const Decoder& decoder);

}  // namespace cepe::model
