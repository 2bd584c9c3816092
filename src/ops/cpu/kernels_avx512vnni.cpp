#include "ops/cpu/int8_attention_kernel.h"
#include "ops/cpu/int8_context_kernel.h"
#include "ops/cpu/vector_avx512vnni.h"

namespace cepe::ops::cpu {

Int8ContextKernel avx512vnni_int8_context_kernel() {
  return {attend_int8<VectorAvx512Vnni>, project_int8<NoTiles, VectorAvx512Vnni>};
}

}  // namespace cepe::ops::cpu
