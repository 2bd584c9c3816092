#include "ops/cpu/table.h"
#include "ops/cpu/vector_avx2.h"

namespace cepe::ops::cpu {

const Kernels& avx2_kernels() {
  static constexpr Kernels table = table_of<VectorAvx2>();
  return table;
}

}  // namespace cepe::ops::cpu
