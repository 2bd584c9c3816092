// Kernels in which a cluster of thread blocks has a unit of work (cluster_rows.cuh): how large the clusters are, and
// the launch, in line (in_line.cuh).
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <atomic>
#include <cstdint>

#include "ops/cuda/cluster_rows.cuh"
#include "ops/cuda/hopper_launch.h"

namespace cepe::ops::cuda {

template <class Plan, auto kernel, int shared_bytes = 0>
struct ClusterLaunch {
  static cudaLaunchConfig_t configuration(int64_t units, int blocks, HopperAttributes& attributes,
                                          cudaStream_t stream) {
    return hopper_configuration({blocks, Plan::threads, shared_bytes}, static_cast<int>(units), attributes, stream);
  }

  // Clusters of that many blocks that the device holds at one time; 0: it has none.
  static int resident(int device, int blocks) {
    int major = 0, result = 0;
    cudaError_t error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    if (error != cudaSuccess || major < 9) return 0;
    if constexpr (shared_bytes > 0)
      error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    HopperAttributes attributes;
    const cudaLaunchConfig_t config = configuration(1, blocks, attributes, nullptr);
    if (error == cudaSuccess) error = cudaOccupancyMaxActiveClusters(&result, kernel, &config);
    if (error != cudaSuccess) {
      cudaGetLastError();
      return 0;
    }
    return result;
  }

  // The same, asked once a device.
  static int known(int device, int blocks) {
    static std::array<std::array<std::atomic<int>, most_cluster_blocks + 1>, 64> counts = {};  // plus one
    if (device < 0 || device >= static_cast<int>(counts.size())) return 0;
    std::atomic<int>& kept = counts[static_cast<size_t>(device)][static_cast<size_t>(blocks)];
    int result = kept.load(std::memory_order_relaxed);
    if (result == 0) kept.store(result = resident(device, blocks) + 1, std::memory_order_relaxed);
    return result - 1;
  }

  // Of a cluster; 0: the device has none. Smaller ones where the larger would not all be there at one time, an eighth
  // of the room given to what is left of the kernels before: a single cluster that has to wait for another's end
  // doubles the time.
  static int blocks(int64_t units, int device) {
    int count = most_cluster_blocks;
    while (count > 1 && units + units / 8 > known(device, count)) --count;
    return known(device, count) > 0 ? count : 0;
  }

  template <class... Arguments>
  static cudaError_t launch(int64_t units, int blocks, cudaStream_t stream, const Arguments&... arguments) {
    HopperAttributes attributes;
    const cudaLaunchConfig_t config = configuration(units, blocks, attributes, stream);
    return cudaLaunchKernelEx(&config, kernel, arguments...);
  }
};

// Tiles of a page of the most rows.
template <class Plan>
int tiles_of_page(const PagedAttentionRun& run) {
  return static_cast<int>((run.page_rows + Plan::tile - 1) / Plan::tile);
}

// Of a few tiles each.
inline bool are_short(const PagedAttentionRun& run) {
  constexpr int64_t few_rows = 128;
  return run.pages * run.page_rows <= few_rows * run.sequences;
}

// Longer contexts keep the device busy by themselves, in equal shares (page_walk.cuh), where that takes their type.
inline bool are_long(const PagedAttentionRun& run) {
  constexpr int64_t most_cached_rows = 8192;  // of a sequence, on average
  return !run.int8_heads && run.pages * run.page_rows > most_cached_rows * run.sequences;
}

// use(plan) for `units` of up to so many query rows each. Clusters<plan>: the launch of its kernel. Blocks are small
// where there are more units than blocks at one time, and short ones.
template <template <class> class Clusters, class Element, int width, class Use>
auto with_rows(const PagedAttentionRun& run, int64_t rows, int64_t units, const Use& use) {
  using One = ClusterPlan<Element, width, 1>;
  if (rows > 1) return rows > 2 ? use(ClusterPlan<Element, width, 4>{}) : use(ClusterPlan<Element, width, 2>{});
  const bool many = are_short(run) && units > Clusters<One>::known(run.device, 1);
  return many ? use(ClusterPlan<Element, width, 1, 2>{}) : use(One{});
}
template <template <class> class Clusters, class Element, class Use>
auto with_width(const PagedAttentionRun& run, int64_t rows, int64_t units, const Use& use) {
  switch (run.width) {
    case 64:
      return with_rows<Clusters, Element, 64>(run, rows, units, use);
    case 128:
      return with_rows<Clusters, Element, 128>(run, rows, units, use);
    default:
      return with_rows<Clusters, Element, 256>(run, rows, units, use);
  }
}
template <template <class> class Clusters, class Use>
auto with_cluster_plan(const PagedAttentionRun& run, int64_t rows, int64_t units, const Use& use) {
  return run.int8_heads ? with_width<Clusters, Int8>(run, rows, units, use)
                        : with_width<Clusters, Bfloat16>(run, rows, units, use);
}

inline bool is_cluster_width(int64_t width) { return width == 64 || width == 128 || width == 256; }

}  // namespace cepe::ops::cuda
