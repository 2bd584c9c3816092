// Paged attention of texts: query rows that each see the cached rows up to their own (causal_rows.cuh).
#pragma once

#include "ops/cuda/launch.h"

namespace cepe::ops::cuda {

// By sizes and device alone.
bool takes_causal_rows(const PagedAttentionRun& run);

// Writes output and log-sum-exp; the workspace is not touched.
cudaError_t attend_causal_rows(const PagedAttentionRun& run, cudaStream_t stream);

}  // namespace cepe::ops::cuda
