// Scaled dot-product attention over packed rows, with grouped heads, and over keys that come in parts.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/layout.h"
#include "ops/merge_attention.h"

namespace cepe::model {

// Query head h reads key/value head floor(h / (H/G)).
//   queries [T, H, D], keys and values [M, G, D] -> [T, H, D] of the queries' type.
// Every query row sees every key row (cross-attention; the encoder inside one chunk). Needs M >= 1.
at::Tensor attend_all(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values, double scale);

// Causal: row t sees keys 0 .. P + t, where P = M - T rows were there before; with a window W > 0 only the last W of
// them, itself included.
at::Tensor attend_causal(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values, double scale,
                         int64_t window);

// The encoder: n chunks at once, each to itself. queries [n, S, H, D], keys and values [n, S, G, D];
// mask [n, S] bool (true = a real token) or undefined -> [n, S, H, D].
at::Tensor attend_chunks(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                         const at::Tensor& mask, double scale);

// Self-attention of one decoder layer for a whole batch, sequence by sequence: over the cache, where there is one and
// the new rows are in it, else over keys and values [N, G, D] themselves. -> [N, H, D].
struct LayerCache {
  at::Tensor keys, values;  // [slots, G, D]; undefined = no cache, every sequence starts here
  size_t layer = 0;         // the decoder's
};
at::Tensor self_attention(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                          const BatchLayout& layout, const LayerCache& cache, double scale, int64_t window);

// T query rows of each of B texts against M rows of the same text, every one of them seen: attend_all, batched.
//   queries [B, T, H, D], keys and values [B, M, G, D] -> [B, T, H, D].
at::Tensor attend_batch(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values, double scale);

// Whether LibTorch's flash and cuDNN attention run on such a GPU (ops/device.h); what does not takes its choice of the
// others, or the composition of products and softmax where the log-sum-exp is wanted.
bool has_flash_attention(int compute_capability);

// attend_all over keys and values that come part by part, merged by their log-sum-exps: exact.
class AttentionInParts {
 public:
  AttentionInParts(at::Tensor queries, double scale);           // [T, H, D]
  void read(const at::Tensor& keys, const at::Tensor& values);  // [M, G, D], M >= 1
  // Of all that was read, at least one part.
  at::Tensor output() const;       // [T, H, D] of the queries' type
  at::Tensor log_sum_exp() const;  // [T, H] float32

 private:
  void add(const ops::PartialAttention& part);

  at::Tensor queries_, folded_;  // folded_ [G, (H/G) * T, D], where LibTorch's kernels take it
  double scale_;
  ops::PartialAttention total_;  // [G, (H/G) * T, D] or [H, T, D], which unfold alike
};

}  // namespace cepe::model
