#include "ops/cpu/packed_kernel.h"
#include "ops/cpu/pair_attention_kernel.h"
#include "ops/cpu/vector_avx512bf16.h"

namespace cepe::ops::cpu {

PairKernel avx512bf16_pair_kernel() { return {attend_pairs<VectorAvx512Bfloat16>, VectorAvx512Bfloat16::width, true}; }

PackedPairKernel avx512bf16_packed_pair_kernel() { return packed_pairs_of<VectorAvx512Bfloat16>(true); }

}  // namespace cepe::ops::cpu
