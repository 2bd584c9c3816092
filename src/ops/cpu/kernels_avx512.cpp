#include "ops/cpu/table.h"
#include "ops/cpu/vector_avx512.h"

namespace cepe::ops::cpu {

const Kernels& avx512_kernels() {
  static constexpr Kernels table = table_of<VectorAvx512>();
  return table;
}

}  // namespace cepe::ops::cpu
