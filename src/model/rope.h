// Rotary angles of a pass: cos and sin per token, shared by all layers. The rotation itself is ops::rotate.
// Scalings: linear position interpolation (arXiv 2306.15595), dynamic NTK (transformers), YaRN (arXiv 2309.00071),
// llama3.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/config.h"
#include "model/layout.h"

namespace cepe::model {

struct RopeAngles {
  at::Tensor cos, sin;  // [N, width / 2] float32, scaled by YaRN's attention factor
};

// theta^(-2i / width) with the scaling applied: [width / 2] float32 on the CPU. `reach` = the largest
// position of this pass + 1; only dynamic scaling looks at it.
at::Tensor inverse_frequencies(const RopeConfig& rope, int64_t reach);

// positions [N] int64 of whole sequences as in the layout. Under dynamic scaling each sequence's reach counts for
// itself.
// frequencies: inverse_frequencies on the layout's device, where the caller has them (never under dynamic scaling);
// otherwise they are made and copied there.
RopeAngles rope_angles(const RopeConfig& rope, const BatchLayout& layout, const at::Tensor& frequencies = {});

}  // namespace cepe::model
