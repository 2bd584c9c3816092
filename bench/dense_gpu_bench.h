// Attention of many query rows over dense keys on a GPU against its bound: part of ops_gpu_bench.
#pragma once

#include <c10/core/Device.h>

namespace cepe::bench {

// For each shape prints the time of LibTorch's flash and cuDNN attention and of ops/dense_attention.h's, by turns, in
// recorded graphs, and TFLOP/s of the last with its ratio to the tensor cores' peak.
void measure_dense_attention(c10::Device device);

}  // namespace cepe::bench
