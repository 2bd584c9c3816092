#include "ops/cuda/on_stream.h"
#include "ops/cuda/table.h"

namespace cepe::ops::cuda {

const char* merge_attention(const MergeAttentionRun& run) { return launch_on_current_stream(run); }

}  // namespace cepe::ops::cuda
