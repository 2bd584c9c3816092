// Work on a GPU, recorded once and started again as a whole: a decode step is some thousand kernels of a few
// microseconds, and launching them one by one takes longer than they run (docs/performance.md).
#pragma once

#include <c10/core/Device.h>

#include <functional>
#include <memory>

namespace cepe::ops {

namespace cuda {
struct CudaKernels;
}

class DeviceGraph {
 public:
  // Runs `work` (twice: once so that libraries are loaded and plans are made, once to record it). It must ask for the
  // same kernels each time, read its inputs and write its results where they were, allocate only through LibTorch, and
  // never wait for the device or read from it. Tensors that it makes live as long as the graph. Nothing (nullptr) on
  // the CPU, where `work` is not run: call it directly there. Errors: those of `work`; what CUDA has against recording.
  static std::unique_ptr<DeviceGraph> record(c10::Device device, const std::function<void()>& work);
  ~DeviceGraph();
  DeviceGraph(const DeviceGraph&) = delete;
  DeviceGraph& operator=(const DeviceGraph&) = delete;

  // Starts it on the stream that LibTorch works on; returns at once.
  void replay();

 private:
  DeviceGraph(const cuda::CudaKernels& kernels, void* graph) : kernels_(&kernels), graph_(graph) {}
  const cuda::CudaKernels* kernels_;
  void* graph_;  // made, started and destroyed by libcepe_cuda.so
};

}  // namespace cepe::ops
