// Paged attention whose keys are its values, of very many query rows of one sequence, as two products
// (latent_products.cuh).
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/cuda/kernels.h"

namespace cepe::ops::cuda {

// Clusters of either kernel; 0: the run is not for it, or it would take longer. By sizes and device alone.
int product_clusters(const PagedAttentionRun& run);
int64_t product_workspace(const PagedAttentionRun& run, int clusters);
cudaError_t attend_by_products(const PagedAttentionRun& run, int clusters, cudaStream_t stream);

}  // namespace cepe::ops::cuda
