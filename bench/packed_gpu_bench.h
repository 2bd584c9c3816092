// Products of packed weights on a GPU against their bound: part of ops_gpu_bench.
#pragma once

#include <c10/core/Device.h>

namespace cepe::bench {

// For each shape of a Llama-2-7B's weights, format and count of rows prints the time of a product in a recorded graph,
// GB/s of the packed weight, the ratio of the bound (its bytes / `bandwidth`, a copy's in bytes a second) to the time,
// and the time of LibTorch's product with a dense bfloat16 weight.
void measure_packed(c10::Device device, double bandwidth);

}  // namespace cepe::bench
