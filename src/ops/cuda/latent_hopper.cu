// Which runs the latent kernel for Hopper takes, in which shape, and its launch.
#include "ops/cuda/hopper_launch.h"
#include "ops/cuda/latent_hopper.cuh"
#include "ops/cuda/latent_hopper.h"

namespace cepe::ops::cuda {
namespace {

// Blocks of a cluster, rows of a unit, blocks of the queries that stay in registers, buffers of probabilities, whether
// values are told of them at once; registers of the warpgroups of scores, of the first and the second of sums, and of
// copies.
using Few512 = LatentPlan<512, 1, 32, 5, 2, false, 152, 160, 160, 40>;
using Many512 = LatentPlan<512, 1, 64, 5, 1, false, 152, 160, 160, 40>;
using Few576 = LatentPlan<576, 1, 32, 1, 2, true, 120, 192, 160, 40>;
using More576 = LatentPlan<576, 1, 64, 1, 2, true, 120, 192, 160, 40>;
using Many576 = LatentPlan<576, 1, 64, 0, 1, false, 120, 192, 160, 40>;
using Few1024 = LatentPlan<1024, 2, 32, 4, 2, false, 152, 160, 160, 40>;
using Many1024 = LatentPlan<1024, 2, 64, 6, 1, false, 168, 160, 160, 24>;

template <class Use>
auto with_plan(const PagedAttentionRun& run, const Use& use) {
  const bool few = run.most_query_rows <= Few512::rows;
  switch (run.width) {
    case 512:
      return few ? use(Few512{}) : use(Many512{});
    case 576:
      return few ? use(Few576{}) : run.most_query_rows <= More576::rows ? use(More576{}) : use(Many576{});
    default:
      return few ? use(Few1024{}) : use(Many1024{});
  }
}

template <class Plan>
constexpr HopperShape shape_of = {Plan::cluster, Plan::threads, static_cast<int>(Plan::shared_bytes)};

// Of the queries: [blocks of 64 columns] [rows] [64 columns].
bool make_query_map(const PagedAttentionRun& run, int rows, CUtensorMap& map) {
  const auto row_bytes = static_cast<cuuint64_t>(run.width) * 2;
  const MapShape shape = {
      {box_columns, static_cast<cuuint64_t>(run.query_rows), static_cast<cuuint64_t>(run.width / box_columns), 1, 1},
      {row_bytes, box_columns * 2, row_bytes, row_bytes},
      {box_columns, static_cast<cuuint32_t>(rows), 1, 1, 1}};
  return make_map(map, const_cast<void*>(run.queries), CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, shape,
                  CU_TENSOR_MAP_SWIZZLE_128B);
}

}  // namespace

LatentCut latent_cut(const PagedAttentionRun& run) {
  if (!run.same || run.int8_pages || !run.bfloat16_queries || run.groups != 1 ||
      (run.width != 512 && run.width != 576 && run.width != 1024))
    return {};
  if (run.key_stride <= 0 || run.key_stride % 8 != 0) return {};
  return with_plan(run, [&](auto plan) -> LatentCut {
    using Plan = decltype(plan);
    const int rows = run.most_query_rows <= 16 ? 16 : Plan::rows;
    const int tiles = static_cast<int>((run.page_rows + Plan::tile - 1) / Plan::tile);
    return {known_clusters<Plan>(attend_latent_pages<Plan>, shape_of<Plan>, run.device),
            {rows, Plan::tile, tiles, true}};
  });
}

cudaError_t attend_latent(const PagedAttentionRun& run, const LatentCut& latent, Bfloat16* sums, float2* states,
                          cudaStream_t stream) {
  return with_plan(run, [&](auto plan) {
    using Plan = decltype(plan);
    CUtensorMap states_map, query_map;
    if (!make_states_map(run, box_columns * 2, Plan::blocks, states_map) || !make_query_map(run, Plan::rows, query_map))
      return cudaErrorNotSupported;
    HopperAttributes attributes;
    const cudaLaunchConfig_t config = hopper_configuration(shape_of<Plan>, latent.clusters, attributes, stream);
    return cudaLaunchKernelEx(&config, attend_latent_pages<Plan>, run, latent.cut, states_map, query_map, sums, states);
  });
}

}  // namespace cepe::ops::cuda
