// What libcepe_cuda.so offers the program that loads it (device.cpp): the state of the driver, and kernels over plain
// pointers. Included on both sides and by the .cu files: no tensor type here.
#pragma once

#include <cstdint>

#include "ops/activation_kind.h"

namespace cepe::ops::cuda {

// Pointers are the device's; `bfloat16` tells bfloat16 from float32. The kernels run on the device's current stream.

struct RmsNormRows {
  const void* x;       // [rows, width] contiguous
  const void* weight;  // [width]
  void* y;             // [rows, width]
  int64_t rows, width;
  float eps;
  bool unit_offset, bfloat16;
  int device;
};
inline constexpr int64_t widest_rms_norm = int64_t{1} << 14;  // a row is kept in one block's registers

struct RotaryRows {
  const void* x;           // [rows, heads, width], channels contiguous
  void* y;                 // [rows, heads, width] contiguous
  const float *cos, *sin;  // [rows, half]
  int64_t rows, heads, width, half;
  int64_t row_stride, head_stride;  // of x, in elements
  bool bfloat16;
  int device;
};

struct GatedRows {
  const void* gate_up;  // [rows, 2 * width] contiguous
  void* y;              // [rows, width]
  int64_t rows, width;
  Activation activation;
  bool bfloat16;
  int device;
};
inline constexpr int64_t most_elements = int64_t{1} << 31;  // of one call: kernels count in 32 bits

// Each returns nullptr, or what CUDA says against the launch.
struct CudaKernels {
  const char* (*rms_norm)(const RmsNormRows&);
  const char* (*rotate)(const RotaryRows&);
  const char* (*gated)(const GatedRows&);
};

struct DriverState {
  int driver;         // newest CUDA version that the driver runs: 1000 * major + 10 * minor; 0 = no driver
  int runtime;        // CUDA version of these libraries, likewise
  int devices;        // GPUs that can be used
  const char* error;  // why there are none, in CUDA's words; nullptr = no error
};

// The two symbols of libcepe_cuda.so.
extern "C" {
DriverState cepe_cuda_driver_state();
// The kernels where this GPU has machine code for them, else nullptr: then the compositions of ATen operations run.
const CudaKernels* cepe_cuda_kernels(int device);
}

}  // namespace cepe::ops::cuda
