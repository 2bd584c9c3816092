#include "ops/cuda/on_stream.h"
#include "ops/cuda/table.h"

namespace cepe::ops::cuda {
namespace {

// False: nothing was launched, be it that there is no kernel for this device and these sizes.
template <class Run>
bool launched(const Run& run) {
  if (launch_on_stream_of(run.product.device, run) == cudaSuccess) return true;
  cudaGetLastError();  // it would otherwise be found by the next launch
  return false;
}

}  // namespace

bool gated_product(const GatedProductRun& run) { return launched(run); }
bool rotated_product(const RotatedProductRun& run) { return launched(run); }

}  // namespace cepe::ops::cuda
