#include "ops/cpu/int8_attention_kernel.h"
#include "ops/cpu/int8_context_kernel.h"
#include "ops/cpu/vector_avxvnni.h"

namespace cepe::ops::cpu {

Int8ContextKernel avxvnni_int8_context_kernel() {
  return {attend_int8<VectorAvxVnni>, project_int8<NoTiles, VectorAvxVnni>};
}

}  // namespace cepe::ops::cpu
