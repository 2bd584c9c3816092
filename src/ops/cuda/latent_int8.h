// Paged attention over states of 8 bits, whose keys are its values, by Hopper's own instructions (latent_int8.cuh).
#pragma once

#include "ops/cuda/latent_hopper.h"

namespace cepe::ops::cuda {

// As latent_cut and attend_latent: a cluster is one thread block.
LatentCut int8_cut(const PagedAttentionRun& run);
cudaError_t attend_int8(const PagedAttentionRun& run, const LatentCut& latent, Bfloat16* sums, float2* states,
                        cudaStream_t stream);

}  // namespace cepe::ops::cuda
