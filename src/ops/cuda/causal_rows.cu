// Which runs the kernel for texts takes, and its launch.
#include <algorithm>

#include "ops/cuda/causal_rows.cuh"
#include "ops/cuda/causal_rows.h"

namespace cepe::ops::cuda {
namespace {

template <class Plan>
cudaError_t launch_with(const PagedAttentionRun& run, cudaStream_t stream) {
  const cudaError_t error =
      cudaFuncSetAttribute(attend_causal<Plan>, cudaFuncAttributeMaxDynamicSharedMemorySize, Plan::shared_bytes);
  if (error != cudaSuccess) return error;
  // Each sequence's last unit may be short.
  const int64_t units = std::max<int64_t>((run.query_rows + (Plan::rows - 1) * run.sequences) / Plan::rows, 1);
  return launch_in_line(attend_causal<Plan>, static_cast<unsigned>(units * run.groups), Plan::threads,
                        Plan::shared_bytes, stream, run);
}

}  // namespace

bool takes_causal_rows(const PagedAttentionRun& run) {
  return !run.same && !run.int8_pages && !run.int8_heads && (run.width == 64 || run.width == 96 || run.width == 128) &&
         run.key_stride % 8 == 0 && run.value_stride % 8 == 0;
}

cudaError_t attend_causal_rows(const PagedAttentionRun& run, cudaStream_t stream) {
  switch (run.width) {
    case 64:
      return launch_with<CausalPlan<64>>(run, stream);
    case 96:
      return launch_with<CausalPlan<96>>(run, stream);
    case 128:
      return launch_with<CausalPlan<128>>(run, stream);
    default:
      return cudaErrorNotSupported;
  }
}

}  // namespace cepe::ops::cuda
