// Paged attention whose keys are its values, by Hopper's own instructions (latent_hopper.cuh).
#pragma once

#include "ops/cuda/elements.cuh"
#include "ops/cuda/launch.h"
#include "ops/cuda/page_walk.cuh"

namespace cepe::ops::cuda {

// How a run is cut for it. By sizes and device alone.
struct LatentCut {
  int clusters = 0;  // that take shares of the tiles; 0: not a case for it
  Cut cut = {};
};
LatentCut latent_cut(const PagedAttentionRun& run);

// The parts of all clusters: sums [slots, cut.query_rows, width] and (maximum, denominator) [slots, cut.query_rows].
cudaError_t attend_latent(const PagedAttentionRun& run, const LatentCut& latent, Bfloat16* sums, float2* states,
                          cudaStream_t stream);

}  // namespace cepe::ops::cuda
