#include "ops/cpu/table.h"
#include "ops/cpu/vector_portable.h"

namespace cepe::ops::cpu {

const Kernels& portable_kernels() {
  static constexpr Kernels table = table_of<VectorPortable>();
  return table;
}

}  // namespace cepe::ops::cpu
