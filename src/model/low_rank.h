// LoRA (arXiv 2106.09685) on the decoder's self-attention: what a decoder learns of a domain without any context.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "model/decoder.h"

namespace cepe::model {

// Adds W += alpha / rank * up * down to the projections `targets` (q_proj, k_proj, v_proj) of every layer: `down`
// random (std 1/sqrt(C)), `up` zero, so that nothing changes at first. Errors: invalid_argument for other targets,
// unsupported for families that interleave q, k and v.
void add_low_rank(Decoder& decoder, int64_t rank, double alpha, const std::vector<std::string>& targets, uint64_t seed);

// Names as PEFT gives them: model.layers.N.self_attn.q_proj.lora_A.weight [r, C], lora_B.weight [out, r].
void visit_low_rank(Decoder& decoder, const std::function<void(const std::string&, at::Tensor&)>& visitor);

// Adds the products to dense weights and drops them. Errors: unsupported where weights are packed.
void merge_low_rank(Decoder& decoder);

}  // namespace cepe::model
