#include "ops/cpu/int8_context_kernel.h"
#include "ops/cpu/int8_product_kernel.h"
#include "ops/cpu/int8_tile_attention_kernel.h"
#include "ops/cpu/tile_kernel.h"
#include "ops/cpu/tiles_amx.h"
#include "ops/cpu/vector_avx512bf16.h"
#include "ops/cpu/vector_avx512vnni.h"

namespace cepe::ops::cpu {

PairKernel amx_pair_kernel() {
  return {attend_tiles<TilesAmx, VectorAvx512Bfloat16>, VectorAvx512Bfloat16::width, true};
}

Int8Kernel amx_int8_kernel() {
  return {multiply_int8<TilesAmxInt8, VectorAvx512Bfloat16>, VectorAvx512Bfloat16::width, true};
}

namespace {
struct VectorAmx : VectorAvx512Vnni {};  // what is made of it here stays here
}  // namespace

Int8ContextKernel amx_int8_context_kernel() {
  return {attend_int8_by_tiles<VectorAmx, TilesAmxMixed, TilesAmxWeights>, project_int8<TilesAmxMixed, VectorAmx>};
}

}  // namespace cepe::ops::cpu
