// Which runs the kernel for states of 8 bits takes, in which shape, and its launch.
#include "ops/cuda/hopper_launch.h"
#include "ops/cuda/latent_int8.cuh"
#include "ops/cuda/latent_int8.h"

namespace cepe::ops::cuda {
namespace {

// Registers of the warpgroups of scores, of sums (each of the two), and of copies.
template <class Use>
auto with_plan(const PagedAttentionRun& run, const Use& use) {
  switch (run.width) {
    case 512:
      return use(Int8Plan<512, 152, 160, 40>{});
    case 576:
      return use(Int8Plan<576, 152, 160, 40>{});
    default:
      return use(Int8Plan<1024, 120, 176, 40>{});
  }
}

template <class Plan>
constexpr HopperShape shape_of = {1, Plan::threads, Plan::shared_bytes};

}  // namespace

LatentCut int8_cut(const PagedAttentionRun& run) {
  if (!run.same || !run.int8_pages || run.groups != 1 || (run.width != 512 && run.width != 576 && run.width != 1024) ||
      run.key_stride != run.width)
    return {};
  return with_plan(run, [&](auto plan) -> LatentCut {
    using Plan = decltype(plan);
    const int rows = run.most_query_rows <= 16 ? 16 : Plan::rows;
    const int tiles = static_cast<int>((run.page_rows + Plan::tile - 1) / Plan::tile);
    return {known_clusters<Plan>(attend_int8_pages<Plan>, shape_of<Plan>, run.device), {rows, Plan::tile, tiles, true}};
  });
}

cudaError_t attend_int8(const PagedAttentionRun& run, const LatentCut& latent, Bfloat16* sums, float2* states,
                        cudaStream_t stream) {
  return with_plan(run, [&](auto plan) {
    using Plan = decltype(plan);
    CUtensorMap map;
    if (!make_states_map(run, Plan::atom, Plan::atoms, map)) return cudaErrorNotSupported;
    HopperAttributes attributes;
    const cudaLaunchConfig_t config = hopper_configuration(shape_of<Plan>, latent.clusters, attributes, stream);
    return cudaLaunchKernelEx(&config, attend_int8_pages<Plan>, run, latent.cut, map, sums, states);
  });
}

}  // namespace cepe::ops::cuda
