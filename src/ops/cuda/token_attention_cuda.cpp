#include "ops/cuda/on_stream.h"
#include "ops/cuda/table.h"

namespace cepe::ops::cuda {

const char* token_attention(const TokenAttentionRun& run) { return launch_on_current_stream(run); }

bool takes_token_attention(const TokenAttentionRun& run) {
  const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(run.device));
  return takes_token(run);
}

}  // namespace cepe::ops::cuda
