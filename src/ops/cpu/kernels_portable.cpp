#include "ops/cpu/int8_attention_kernel.h"
#include "ops/cpu/int8_context_kernel.h"
#include "ops/cpu/int8_product_kernel.h"
#include "ops/cpu/int8_tile_attention_kernel.h"
#include "ops/cpu/packed_kernel.h"
#include "ops/cpu/table.h"
#include "ops/cpu/tile_kernel.h"
#include "ops/cpu/tiles_portable.h"
#include "ops/cpu/vector_portable.h"

namespace cepe::ops::cpu {

const Kernels& portable_kernels() {
  static constexpr Kernels table = table_of<VectorPortable>();
  return table;
}

PairKernel portable_pair_kernel() { return {attend_pairs<VectorPortable>, VectorPortable::width, false}; }

PackedPairKernel portable_packed_pair_kernel() { return packed_pairs_of<VectorPortable>(false); }

PairKernel portable_tile_kernel() {
  return {attend_tiles<TilesPortable, VectorPortable>, VectorPortable::width, false};
}

Int8Kernel portable_int8_kernel() {
  return {multiply_int8<TilesPortableInt8, VectorPortable>, VectorPortable::width, false};
}

Int8ContextKernel portable_int8_context_kernel() {
  return {attend_int8<VectorPortable>, project_int8<NoTiles, VectorPortable>};
}

Int8ContextKernel portable_int8_context_tiles() {
  return {attend_int8_by_tiles<VectorPortable, TilesPortableMixed, TilesPortableWeights>,
          project_int8<TilesPortableMixed, VectorPortable>};
}

}  // namespace cepe::ops::cpu
