// The kernels of libcepe_cuda.so, once a GPU has been opened (ops/device.h).
#pragma once

#include "ops/cuda/kernels.h"

namespace cepe::ops::cuda {

// nullptr while no GPU is open, and where an opened one has no machine code in the library.
const CudaKernels* kernels();

// Errors: internal, where a launch was refused: the kernel's name and CUDA's words.
void check(const char* error, const char* kernel);

}  // namespace cepe::ops::cuda
