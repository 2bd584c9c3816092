// One row of x and a weight of 8 bits a value, or of bfloat16 (one_row.cu).
#pragma once

#include <cuda_runtime_api.h>

#include "ops/cuda/kernels.h"

namespace cepe::ops::cuda {

// Whether launch_one_row takes it: x must fit in shared memory. By sizes alone.
bool is_one_row(const PackedProductRun& run);
bool is_one_row(const RowProductRun& run);

cudaError_t launch_one_row(const PackedProductRun& run, cudaStream_t stream);
cudaError_t launch_one_row(const RowProductRun& run, cudaStream_t stream);

}  // namespace cepe::ops::cuda
