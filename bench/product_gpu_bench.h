// Products of many rows on a GPU against their bound: part of ops_gpu_bench.
#pragma once

#include <c10/core/Device.h>

namespace cepe::bench {

// For each shape of a Llama-2-7B's and a 24 x 1024 encoder's weights and count of rows prints the time of LibTorch's
// product in a recorded graph and of ops/tuned_product.h's, by turns, and TFLOP/s.
void measure_products(c10::Device device);

}  // namespace cepe::bench
