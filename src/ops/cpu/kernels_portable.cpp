#include "ops/cpu/int8_product_kernel.h"
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

PairKernel portable_tile_kernel() {
  return {attend_tiles<TilesPortable, VectorPortable>, VectorPortable::width, false};
}

Int8Kernel portable_int8_kernel() {
  return {multiply_int8<TilesPortableInt8, VectorPortable>, VectorPortable::width, false};
}

}  // namespace cepe::ops::cpu
