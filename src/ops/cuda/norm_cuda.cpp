#include "ops/cuda/on_stream.h"
#include "ops/cuda/table.h"

namespace cepe::ops::cuda {

const char* rms_norm(const RmsNormRows& run) { return launch_on_current_stream(run); }
const char* rms_norm_gradient(const RmsNormGradientRows& run) { return launch_on_current_stream(run); }

}  // namespace cepe::ops::cuda
