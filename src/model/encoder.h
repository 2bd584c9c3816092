// The encoder: reads chunks of a long context, each on its own, in parallel. Llama blocks without the causal mask;
// rotary positions 0..S-1 start anew in every chunk; RMSNorm at the end.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/decoder.h"

namespace cepe::model {

struct EncoderLayer {
  Norm attention_norm;
  Linear query_key_value;  // rows [q (H*D); k (G*D); v (G*D)]
  Linear output;
  Norm feed_forward_norm;
  FeedForward feed_forward;
};

struct Encoder {
  EncoderConfig config;
  Linear embedding;  // [V, E]; the decoder's own (shared storage) where config.shares_embeddings
  std::vector<EncoderLayer> layers;
  Norm norm;
  at::ScalarType activation_type = at::kFloat;
};

// chunks [n, S] int64, mask [n, S] bool (true = a real token) or undefined (all are) -> states [n, S, E]. States of
// padded tokens mean nothing. A chunk without any real token must not be passed.
at::Tensor forward(const Encoder& encoder, const at::Tensor& chunks, const at::Tensor& mask = {});

// Published names, with `prefix` ("encoder.") before "embed_tokens.weight", "layers.N...", "norm.weight"; a shared
// embedding table is left out. Fused weights are visited as views of their parts.
void visit(Encoder& encoder, const std::string& prefix,
           const std::function<void(const std::string&, at::Tensor&)>& visitor);

// Calls visitor(tensor) for every trained tensor as it is kept (fused ones whole), by reference: what an optimiser
// walks.
void visit_parameters(Encoder& encoder, const std::function<void(at::Tensor&)>& visitor);

}  // namespace cepe::model
