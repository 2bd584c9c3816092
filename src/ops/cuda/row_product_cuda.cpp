#include "ops/cuda/on_stream.h"
#include "ops/cuda/table.h"

namespace cepe::ops::cuda {

const char* row_product(const RowProductRun& run) { return launch_on_current_stream(run); }
const char* transposed_head_product(const TransposedProductRun& run) { return launch_on_current_stream(run); }

}  // namespace cepe::ops::cuda
