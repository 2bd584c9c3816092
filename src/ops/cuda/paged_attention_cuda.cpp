#include "ops/cuda/on_stream.h"
#include "ops/cuda/table.h"

namespace cepe::ops::cuda {

const char* paged_attention(const PagedAttentionRun& run) { return launch_on_current_stream(run); }

int64_t paged_attention_bytes(const PagedAttentionRun& run) {
  const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(run.device));
  return paged_attention_workspace(run);
}

bool attends_into_heads(const PagedAttentionRun& run) {
  const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(run.device));
  return takes_heads(run);
}

}  // namespace cepe::ops::cuda
