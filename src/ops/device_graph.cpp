#include "ops/device_graph.h"

#include "base/error.h"
#include "ops/cuda/loaded.h"

namespace cepe::ops {

std::unique_ptr<DeviceGraph> DeviceGraph::record(c10::Device device, const std::function<void()>& work) {
  if (device.is_cpu()) return nullptr;
  const cuda::CudaKernels* kernels = cuda::kernels();
  if (!kernels) {
    throw base::Error(base::ErrorCode::unsupported, "graphs: libcepe_cuda.so has no machine code for this GPU");
  }
  return std::unique_ptr<DeviceGraph>(new DeviceGraph(*kernels, kernels->record_graph(device.index(), work)));
}

DeviceGraph::~DeviceGraph() { kernels_->destroy_graph(graph_); }

void DeviceGraph::replay() { kernels_->replay_graph(graph_); }

}  // namespace cepe::ops
