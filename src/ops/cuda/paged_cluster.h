// Paged attention of few query rows over short contexts by clusters of thread blocks (paged_cluster.cuh).
#pragma once

#include "ops/cuda/launch.h"

namespace cepe::ops::cuda {

// Thread blocks of the cluster that takes a sequence and group; 0: not a case for it. By sizes and device alone.
int cluster_blocks(const PagedAttentionRun& run);

// Writes output and log-sum-exp; the workspace is not touched.
cudaError_t attend_in_clusters(const PagedAttentionRun& run, int blocks, cudaStream_t stream);

}  // namespace cepe::ops::cuda
