// Which products with something after them the kernel for Hopper takes, and its launch.
#include "ops/cuda/fused_product.cuh"
#include "ops/cuda/hopper_launch.h"

namespace cepe::ops::cuda {
namespace {

template <class Plan>
constexpr HopperShape product_shape = {2, Plan::threads, Plan::shared_bytes};

// cudaErrorNotSupported: this device, or these pointers, are not for it.
template <class Result>
cudaError_t multiply(const FusedProductRun& run, const Result& result, cudaStream_t stream) {
  using Plan = typename Result::Plan;
  const int clusters = known_clusters<Result>(product_kernel<Result>, product_shape<Plan>, run.device);
  if (clusters == 0) return cudaErrorNotSupported;
  constexpr bool halved = Plan::pieces == 1;  // as many results as half the weight's rows
  const int64_t columns = halved ? run.outputs / 2 : run.outputs, step = halved ? Plan::half : 2 * Plan::half;
  CUtensorMap x, weight, y;
  if (!make_matrix_map(run.x, run.rows, run.inputs, Plan::rows, x) ||
      !make_matrix_map(run.weight, run.outputs, run.inputs, Plan::half, weight) ||
      !make_matrix_map(run.y, run.rows, columns, Plan::rows, y))
    return cudaErrorNotSupported;
  const auto pieces = [](int64_t of, int64_t size) { return static_cast<int>((of + size - 1) / size); };
  const ProductTiles tiles = {.row_pairs = pieces(run.rows, 2 * Plan::rows),
                              .columns = pieces(columns, step),
                              .blocks = pieces(run.inputs, Plan::depth),
                              .step = static_cast<int>(step),
                              .second_half = static_cast<int>(halved ? columns : Plan::half),
                              .rows_first = run.rows <= run.outputs};
  HopperAttributes attributes;
  const cudaLaunchConfig_t config = hopper_configuration(product_shape<Plan>, clusters, attributes, stream);
  return cudaLaunchKernelEx(&config, product_kernel<Result>, tiles, x, weight, y, result);
}

}  // namespace

cudaError_t launch(const GatedProductRun& run, cudaStream_t stream) {
  switch (run.activation) {
    case Activation::silu:
      return multiply(run.product, GatedResult<Activation::silu>{}, stream);
    case Activation::gelu_tanh:
      return multiply(run.product, GatedResult<Activation::gelu_tanh>{}, stream);
    default:
      return cudaErrorNotSupported;
  }
}

cudaError_t launch(const RotatedProductRun& run, cudaStream_t stream) {
  const auto rows = static_cast<int>(run.product.rows), rotated = static_cast<int>(run.heads * run.width);
  switch (run.width) {
    case 64:
      return multiply(run.product, RotatedResult<64>{run.cos, run.sin, rows, rotated}, stream);
    case 128:
      return multiply(run.product, RotatedResult<128>{run.cos, run.sin, rows, rotated}, stream);
    default:
      return cudaErrorNotSupported;
  }
}

}  // namespace cepe::ops::cuda
