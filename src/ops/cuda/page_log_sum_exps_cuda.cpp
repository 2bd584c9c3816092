#include "ops/cuda/on_stream.h"
#include "ops/cuda/table.h"

namespace cepe::ops::cuda {

const char* page_log_sum_exps(const PageLogSumExpsRun& run) { return launch_on_current_stream(run); }

}  // namespace cepe::ops::cuda
