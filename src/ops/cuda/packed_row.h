// One row of x and a weight of 8 bits a value (packed_row.cu).
#pragma once

#include <cuda_runtime_api.h>

#include "ops/cuda/kernels.h"

namespace cepe::ops::cuda {

// Whether launch_row takes it: x must fit in shared memory. By sizes alone.
bool is_row_product(const PackedProductRun& run);

cudaError_t launch_row(const PackedProductRun& run, cudaStream_t stream);

}  // namespace cepe::ops::cuda
