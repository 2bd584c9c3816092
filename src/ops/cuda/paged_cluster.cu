// Which runs clusters of thread blocks take, and the launch.
#include "ops/cuda/cluster_launch.cuh"
#include "ops/cuda/paged_cluster.cuh"
#include "ops/cuda/paged_cluster.h"

namespace cepe::ops::cuda {
namespace {

template <class Plan>
using Clusters = ClusterLaunch<Plan, attend_in_cluster<Plan>>;

template <int width, class Use>
auto with_rows(const PagedAttentionRun& run, const Use& use) {
  if (run.most_query_rows <= 1) {
    using One = ClusterPlan<width, 1>;
    const bool many = run.sequences * run.groups > Clusters<One>::known(run.device, 1);
    return are_short(run) && many ? use(ClusterPlan<width, 1, 2>{}) : use(One{});
  }
  if (run.most_query_rows <= 2) return use(ClusterPlan<width, 2>{});
  return use(ClusterPlan<width, 4>{});
}
template <class Use>
auto with_plan(const PagedAttentionRun& run, const Use& use) {
  switch (run.width) {
    case 64:
      return with_rows<64>(run, use);
    case 128:
      return with_rows<128>(run, use);
    default:
      return with_rows<256>(run, use);
  }
}

}  // namespace

int cluster_blocks(const PagedAttentionRun& run) {
  if (run.same || run.most_query_rows > most_cluster_rows || !is_cluster_width(run.width)) return 0;
  if (run.key_stride % 8 != 0 || run.value_stride % 8 != 0) return 0;
  if (run.pages <= 0 || are_long(run)) return 0;
  return with_plan(run,
                   [&](auto plan) { return Clusters<decltype(plan)>::blocks(run.sequences * run.groups, run.device); });
}

cudaError_t attend_in_clusters(const PagedAttentionRun& run, int blocks, cudaStream_t stream) {
  return with_plan(run, [&](auto plan) {
    using Plan = decltype(plan);
    return Clusters<Plan>::launch(run.sequences * run.groups, blocks, stream, run, tiles_of_page<Plan>(run));
  });
}

}  // namespace cepe::ops::cuda
