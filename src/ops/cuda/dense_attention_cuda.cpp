#include "ops/cuda/on_stream.h"
#include "ops/cuda/table.h"

namespace cepe::ops::cuda {

int dense_attention_units(int64_t width, int device) {
  const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device));
  return dense_units(width, device);
}

const char* dense_attention(const DenseAttentionRun& run) { return launch_on_current_stream(run); }

}  // namespace cepe::ops::cuda
