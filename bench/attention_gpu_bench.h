// Attention over pages on a GPU against its bound: part of ops_gpu_bench.
#pragma once

#include <c10/core/Device.h>

namespace cepe::bench {

// Prints for each shape the time of a call in a recorded graph, GB/s of the cached rows, TFLOP/s, and the ratio of the
// bound (the larger of bytes / `bandwidth`, a copy's in bytes a second, and operations / tensor peak) to the time.
void measure_attention(c10::Device device, double bandwidth);

}  // namespace cepe::bench
