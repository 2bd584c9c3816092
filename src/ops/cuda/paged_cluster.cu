// Which runs clusters of thread blocks take, and the launch.
#include "ops/cuda/cluster_launch.cuh"
#include "ops/cuda/paged_cluster.cuh"
#include "ops/cuda/paged_cluster.h"

namespace cepe::ops::cuda {
namespace {

template <class Plan>
using Clusters = ClusterLaunch<Plan, attend_in_cluster<Plan>>;

int64_t units_of(const PagedAttentionRun& run) { return run.sequences * run.groups; }

template <class Use>
auto with_plan(const PagedAttentionRun& run, const Use& use) {
  return with_cluster_plan<Clusters>(run, run.most_query_rows, units_of(run), use);
}

}  // namespace

int cluster_blocks(const PagedAttentionRun& run) {
  if (run.same || run.most_query_rows > most_cluster_rows || !is_cluster_width(run.width)) return 0;
  if (run.key_stride % 8 != 0 || run.value_stride % 8 != 0) return 0;
  if (!run.int8_heads && (run.pages <= 0 || are_long(run))) return 0;
  return with_plan(run, [&](auto plan) { return Clusters<decltype(plan)>::blocks(units_of(run), run.device); });
}

cudaError_t attend_in_clusters(const PagedAttentionRun& run, int blocks, cudaStream_t stream) {
  return with_plan(run, [&](auto plan) {
    using Plan = decltype(plan);
    return Clusters<Plan>::launch(units_of(run), blocks, stream, run, tiles_of_page<Plan>(run));
  });
}

}  // namespace cepe::ops::cuda
