#include "ops/cpu/pair_attention_kernel.h"
#include "ops/cpu/vector_avx512bf16.h"

namespace cepe::ops::cpu {

PairKernel avx512bf16_pair_kernel() { return {attend_pairs<VectorAvx512Bfloat16>, VectorAvx512Bfloat16::width, true}; }

}  // namespace cepe::ops::cpu
