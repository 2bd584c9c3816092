// Which widths the kernel for many query rows over dense keys takes, and its launch.
#include "ops/cuda/dense_attention.cuh"
#include "ops/cuda/hopper_launch.h"
#include "ops/cuda/launch.h"

namespace cepe::ops::cuda {
namespace {

template <class Plan>
constexpr HopperShape shape_of = {2, Plan::threads, Plan::shared_bytes};

template <class Use>
auto with_width(int64_t width, const Use& use) {
  switch (width) {
    case 64:
      return use(DensePlan<64>{});
    case 128:
      return use(DensePlan<128>{});
    default:
      return decltype(use(DensePlan<128>{})){};
  }
}

}  // namespace

int dense_units(int64_t width, int device) {
  return with_width(width,
                    [&]<class Plan>(Plan) { return known_clusters<Plan>(attend_dense<Plan>, shape_of<Plan>, device); });
}

cudaError_t launch(const DenseAttentionRun& run, cudaStream_t stream) {
  if (dense_units(run.width, run.device) == 0) return cudaErrorNotSupported;
  return with_width(run.width, [&]<class Plan>(Plan) {
    static_assert(Plan::tile == dense_attention_tile && 2 * Plan::rows == dense_attention_rows);
    CUtensorMap queries, keys, values;
    if (!make_rows_map(run.queries, run.query_rows, run.heads * run.width, run.query_stride, Plan::rows, queries) ||
        !make_rows_map(run.keys, run.key_rows, run.groups * run.width, run.key_stride, Plan::half, keys) ||
        !make_rows_map(run.values, run.key_rows, run.groups * run.width, run.value_stride, Plan::half, values))
      return cudaErrorNotSupported;
    const int64_t row_pairs = blocks_for(run.query_rows, dense_attention_rows);
    HopperAttributes attributes;
    const cudaLaunchConfig_t config =
        hopper_configuration(shape_of<Plan>, static_cast<int>(row_pairs * run.heads * run.parts), attributes, stream);
    return cudaLaunchKernelEx(&config, attend_dense<Plan>, run, queries, keys, values);
  });
}

}  // namespace cepe::ops::cuda
