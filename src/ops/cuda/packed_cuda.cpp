#include "ops/cuda/on_stream.h"
#include "ops/cuda/table.h"

namespace cepe::ops::cuda {

const char* packed_product(const PackedProductRun& run) { return launch_on_current_stream(run); }
const char* unpack(const UnpackRun& run) { return launch_on_current_stream(run); }

}  // namespace cepe::ops::cuda
