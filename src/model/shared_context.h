// Contexts of training: encoded text that many windows read at once.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace cepe::model {

// Encoded text that many windows read at once, as in training: each window sees a stretch of it.
struct SharedContext {
  at::Tensor states;  // [B, M, E]: B texts
  // What window w of every text b sees: rows [first, first + rows) of its own states, and the first `others` rows of
  // text (b + 1) mod B. Nothing at all: that window has no context.
  struct Slice {
    int64_t first = 0, rows = 0, others = 0;
  };
  std::vector<Slice> slices;  // by window; the layout's sequence w * B + b is window w of text b, all of one length
};

// Cross-attention of all windows: queries [W, B, T, H, D], keys and values [B, M, G, D] of the same texts -> outputs of
// the queries' shape; zeros for windows that see nothing. Differentiable once: gradients of all windows are added up in
// one place, where the chain of slices would make a zero-filled tensor of every window.
at::Tensor attend_windows(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                          const std::vector<SharedContext::Slice>& slices, double scale);

}  // namespace cepe::model
