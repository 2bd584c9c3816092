// Which tokens attend_token takes, and its launch.
#include "ops/cuda/cluster_launch.cuh"
#include "ops/cuda/launch.h"
#include "ops/cuda/token_attention.cuh"

namespace cepe::ops::cuda {
namespace {

constexpr int most_clusters = 2;  // of a group: its rows are read as often

int64_t units_of(const TokenAttentionRun& run) {
  return run.pages.sequences * run.pages.groups * head_cut(run).clusters;
}

template <class Plan>
using Clusters = ClusterLaunch<Plan, attend_token<Plan>, TokenPlan<Plan>::shared_bytes>;

template <int width, class Use>
auto with_rows(const TokenAttentionRun& run, const Use& use) {
  const int rows = head_cut(run).rows;
  if (rows <= 1) {
    using One = ClusterPlan<width, 1>;
    const bool many = units_of(run) > Clusters<One>::known(run.device, 1);
    return are_short(run.pages) && many ? use(ClusterPlan<width, 1, 2>{}) : use(One{});
  }
  return rows <= 2 ? use(ClusterPlan<width, 2>{}) : use(ClusterPlan<width, 4>{});
}
template <class Use>
auto with_plan(const TokenAttentionRun& run, const Use& use) {
  switch (run.pages.width) {
    case 64:
      return with_rows<64>(run, use);
    case 128:
      return with_rows<128>(run, use);
    default:
      return with_rows<256>(run, use);
  }
}

int blocks_of(const TokenAttentionRun& run) {
  return with_plan(run, [&](auto plan) { return Clusters<decltype(plan)>::blocks(units_of(run), run.device); });
}

}  // namespace

bool takes_token(const TokenAttentionRun& run) {
  const PagedAttentionRun& pages = run.pages;
  const RotaryCacheRows& tokens = run.tokens;
  const auto whole = [](int64_t size) { return size % 8 == 0; };  // 16 bytes
  const bool aligned = is_wide_aligned(tokens.queries) && is_wide_aligned(tokens.keys) &&
                       is_wide_aligned(tokens.values) && is_wide_aligned(tokens.cos) && is_wide_aligned(tokens.sin) &&
                       is_wide_aligned(tokens.cache_keys) && is_wide_aligned(tokens.cache_values) &&
                       whole(tokens.query_row) && whole(tokens.query_head) && whole(tokens.key_row) &&
                       whole(tokens.key_head) && whole(tokens.value_row) && whole(tokens.value_head) &&
                       whole(pages.key_stride) && whole(pages.value_stride);
  return aligned && tokens.bfloat16 && tokens.half % 4 == 0 && is_cluster_width(pages.width) &&
         head_cut(run).clusters <= most_clusters && pages.pages > 0 && !are_long(pages) && blocks_of(run) > 0;
}

cudaError_t launch(const TokenAttentionRun& run, cudaStream_t stream) {
  const int blocks = blocks_of(run);
  return with_plan(run, [&](auto plan) {
    using Plan = decltype(plan);
    return Clusters<Plan>::launch(units_of(run), blocks, stream, run, head_cut(run), tiles_of_page<Plan>(run.pages));
  });
}

}  // namespace cepe::ops::cuda
