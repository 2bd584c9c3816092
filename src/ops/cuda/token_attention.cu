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

template <class Use>
auto with_plan(const TokenAttentionRun& run, const Use& use) {
  return with_cluster_plan<Clusters>(run.pages, head_cut(run).rows, units_of(run), use);
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
