#include "ops/cuda/on_stream.h"
#include "ops/cuda/table.h"

namespace cepe::ops::cuda {

const char* rotate(const RotaryRows& run) { return launch_on_current_stream(run); }
const char* rotate_into_cache(const RotaryCacheRows& run) { return launch_on_current_stream(run); }

}  // namespace cepe::ops::cuda
