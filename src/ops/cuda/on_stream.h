// Runs a launch on the device that holds its data, on the stream that LibTorch works on there.
#pragma once

#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "ops/cuda/launch.h"

namespace cepe::ops::cuda {

template <class Run>
cudaError_t launch_on_stream_of(int device, const Run& run) {
  const auto index = static_cast<c10::DeviceIndex>(device);
  const c10::cuda::CUDAGuard guard(index);
  return launch(run, c10::cuda::getCurrentCUDAStream(index).stream());
}

// nullptr, or what CUDA says against it.
template <class Run>
const char* launch_on_current_stream(const Run& run) {
  const cudaError_t error = launch_on_stream_of(run.device, run);
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace cepe::ops::cuda
