#include "ops/cpu/int8_attention_kernel.h"
#include "ops/cpu/int8_context_kernel.h"
#include "ops/cpu/table.h"
#include "ops/cpu/vector_avx2.h"

namespace cepe::ops::cpu {

const Kernels& avx2_kernels() {
  static constexpr Kernels table = table_of<VectorAvx2>();
  return table;
}

Int8ContextKernel avx2_int8_context_kernel() { return {attend_int8<VectorAvx2>, project_int8<NoTiles, VectorAvx2>}; }

}  // namespace cepe::ops::cpu
