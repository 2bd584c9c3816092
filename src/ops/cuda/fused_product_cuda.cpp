#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "ops/cuda/launch.h"
#include "ops/cuda/table.h"

namespace cepe::ops::cuda {
namespace {

// False: nothing was launched, be it that there is no kernel for this device and these sizes.
template <class Run>
bool launched(const Run& run) {
  const auto index = static_cast<c10::DeviceIndex>(run.product.device);
  const c10::cuda::CUDAGuard guard(index);
  if (launch(run, c10::cuda::getCurrentCUDAStream(index).stream()) == cudaSuccess) return true;
  cudaGetLastError();  // it would otherwise be found by the next launch
  return false;
}

}  // namespace

bool gated_product(const GatedProductRun& run) { return launched(run); }
bool rotated_product(const RotatedProductRun& run) { return launched(run); }

}  // namespace cepe::ops::cuda
