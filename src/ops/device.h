// Where tensors live and products are made: the CPU, or a GPU whose libraries are loaded only when one is asked for.
#pragma once

#include <c10/core/Device.h>

#include <string_view>

namespace cepe::ops {

// "cpu"; "cuda" (the first GPU) or "cuda:N"; "auto": the first GPU where there is one that works, else the CPU (a GPU
// that is there and does not work is warned of). For a GPU, loads libcepe_cuda.so and LibTorch's CUDA part the first
// time, and keeps float32 products in float32 (no TF32). Call it before anything else that may ask LibTorch for CUDA
// (at::manual_seed does): LibTorch remembers the answer. Thread-safe.
// Errors, each saying what is missing: invalid_argument (a name of none of these forms), not_found (this build has no
// CUDA part), unsupported (no GPU, no driver, a driver too old, a library that does not load, no GPU of that number).
at::Device open_device(std::string_view name);

// Whether a GPU has been opened in this process.
bool cuda_is_open();

}  // namespace cepe::ops
