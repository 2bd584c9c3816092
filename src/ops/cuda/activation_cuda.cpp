#include "ops/cuda/on_stream.h"
#include "ops/cuda/table.h"

namespace cepe::ops::cuda {

const char* gated(const GatedRows& run) { return launch_on_current_stream(run); }
const char* gated_silu_gradient(const GatedSiluGradientRows& run) { return launch_on_current_stream(run); }

}  // namespace cepe::ops::cuda
