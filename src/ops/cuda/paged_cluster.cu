// Which runs clusters of thread blocks take, how large the clusters are, and the launch.
#include <array>
#include <atomic>

#include "ops/cuda/paged_cluster.cuh"
#include "ops/cuda/paged_cluster.h"

namespace cepe::ops::cuda {
namespace {

// Longer contexts keep the device busy by themselves, in equal shares (page_walk.cuh).
constexpr int64_t most_cached_rows = 8192;  // of a sequence, on average

using Attributes = std::array<cudaLaunchAttribute, 2>;

cudaLaunchConfig_t configuration(int64_t units, int blocks, int threads, Attributes& attributes, cudaStream_t stream) {
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim.x = static_cast<unsigned>(blocks);
  attributes[0].val.clusterDim.y = attributes[0].val.clusterDim.z = 1;
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;  // in_line.cuh
  attributes[1].val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t result = {};
  result.gridDim = dim3(static_cast<unsigned>(units * blocks));
  result.blockDim = dim3(static_cast<unsigned>(threads));
  result.stream = stream;
  result.attrs = attributes.data();
  result.numAttrs = attributes.size();
  return result;
}

// Clusters of that many blocks that the device holds at one time; 0: it has none.
template <class Plan>
int resident_clusters(int device, int blocks) {
  int major = 0, result = 0;
  cudaError_t error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error != cudaSuccess || major < 9) return 0;
  Attributes attributes;
  const cudaLaunchConfig_t config = configuration(1, blocks, Plan::threads, attributes, nullptr);
  error = cudaOccupancyMaxActiveClusters(&result, attend_in_cluster<Plan>, &config);
  if (error != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return result;
}

template <class Plan>
int known_clusters(int device, int blocks) {
  static std::array<std::array<std::atomic<int>, most_cluster_blocks + 1>, 64> known = {};  // plus one
  if (device < 0 || device >= static_cast<int>(known.size())) return 0;
  std::atomic<int>& kept = known[device][blocks];
  int result = kept.load(std::memory_order_relaxed);
  if (result == 0) kept.store(result = resident_clusters<Plan>(device, blocks) + 1, std::memory_order_relaxed);
  return result - 1;
}

// More sequences and groups than blocks at one time, of a few tiles each.
template <int width>
bool are_many_and_short(const PagedAttentionRun& run) {
  constexpr int64_t few_rows = 128;
  return run.pages * run.page_rows <= few_rows * run.sequences &&
         run.sequences * run.groups > known_clusters<ClusterPlan<width, 1>>(run.device, 1);
}

template <int width, class Use>
auto with_rows(const PagedAttentionRun& run, const Use& use) {
  if (run.most_query_rows <= 1)
    return are_many_and_short<width>(run) ? use(ClusterPlan<width, 1, 2>{}) : use(ClusterPlan<width, 1>{});
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
  if (run.same || run.most_query_rows > 4 || (run.width != 64 && run.width != 128 && run.width != 256)) return 0;
  if (run.key_stride % 8 != 0 || run.value_stride % 8 != 0) return 0;
  if (run.pages <= 0 || run.pages * run.page_rows > most_cached_rows * run.sequences) return 0;
  const int64_t units = run.sequences * run.groups;
  return with_plan(run, [&](auto plan) {
    using Plan = decltype(plan);
    // Smaller ones where the larger would not all be there at one time, an eighth of the room given to what is left of
    // the kernels before: a single cluster that has to wait for another's end doubles the time.
    int blocks = most_cluster_blocks;
    while (blocks > 1 && units + units / 8 > known_clusters<Plan>(run.device, blocks)) --blocks;
    return known_clusters<Plan>(run.device, blocks) > 0 ? blocks : 0;
  });
}

cudaError_t attend_in_clusters(const PagedAttentionRun& run, int blocks, cudaStream_t stream) {
  return with_plan(run, [&](auto plan) {
    using Plan = decltype(plan);
    Attributes attributes;
    const cudaLaunchConfig_t config =
        configuration(run.sequences * run.groups, blocks, Plan::threads, attributes, stream);
    const int tiles_per_page = static_cast<int>((run.page_rows + Plan::tile - 1) / Plan::tile);
    return cudaLaunchKernelEx(&config, attend_in_cluster<Plan>, run, tiles_per_page);
  });
}

}  // namespace cepe::ops::cuda
