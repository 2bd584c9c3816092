// Which runs the latent kernel for Hopper takes, in which shape, and its launch.
#include <array>
#include <atomic>

#include "ops/cuda/latent_hopper.cuh"
#include "ops/cuda/latent_hopper.h"

namespace cepe::ops::cuda {
namespace {

template <class Few, class Many, class Use>
auto with_rows(const PagedAttentionRun& run, const Use& use) {
  return run.most_query_rows <= Few::rows ? use(Few{}) : use(Many{});
}
// Blocks of a cluster, rows of a unit, blocks of the queries that stay in registers, buffers of probabilities;
// registers of the warpgroups of scores, of the first and the second of sums, and of copies.
template <class Use>
auto with_plan(const PagedAttentionRun& run, const Use& use) {
  switch (run.width) {
    case 512:
      return with_rows<LatentPlan<512, 1, 32, 5, 1, 168, 160, 160, 24>,
                       LatentPlan<512, 1, 64, 5, 1, 168, 160, 160, 24>>(run, use);
    case 576:
      return with_rows<LatentPlan<576, 1, 32, 0, 1, 128, 200, 160, 24>,
                       LatentPlan<576, 1, 64, 0, 1, 128, 200, 160, 24>>(run, use);
    default:
      return with_rows<LatentPlan<1024, 2, 32, 4, 2, 152, 160, 160, 40>,
                       LatentPlan<1024, 2, 64, 6, 1, 168, 160, 160, 24>>(run, use);
  }
}

using Attributes = std::array<cudaLaunchAttribute, 2>;

template <class Plan>
cudaLaunchConfig_t configuration(int clusters, Attributes& attributes, cudaStream_t stream) {
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim.x = Plan::cluster;
  attributes[0].val.clusterDim.y = attributes[0].val.clusterDim.z = 1;
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;  // in_line.cuh
  attributes[1].val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t result = {};
  result.gridDim = dim3(static_cast<unsigned>(clusters * Plan::cluster));
  result.blockDim = dim3(Plan::threads);
  result.dynamicSmemBytes = Plan::shared_bytes;
  result.stream = stream;
  result.attrs = attributes.data();
  result.numAttrs = attributes.size();
  return result;
}

// nullptr: a driver without it.
decltype(&cuTensorMapEncodeTiled) map_encoder() {
  static const auto encode = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult state = {};
    const cudaError_t error =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &state);
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(error == cudaSuccess ? found : nullptr);
  }();
  return encode;
}

// As many as the device holds at one time; 0: it has none of their instructions, or of their memory.
template <class Plan>
int resident_clusters(int device) {
  int major = 0, processors = 0, result = 0;
  cudaError_t error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error != cudaSuccess || major != 9 || !map_encoder()) return 0;
  error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess) {
    error = cudaFuncSetAttribute(attend_latent_pages<Plan>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(Plan::shared_bytes));
  }
  cudaFuncAttributes kernel = {};
  if (error == cudaSuccess) error = cudaFuncGetAttributes(&kernel, attend_latent_pages<Plan>);
  if (error == cudaSuccess && kernel.numRegs < 64) return 0;  // an empty one: compiled for another architecture
  Attributes attributes;
  const cudaLaunchConfig_t config = configuration<Plan>(processors / Plan::cluster, attributes, nullptr);
  if (error == cudaSuccess) error = cudaOccupancyMaxActiveClusters(&result, attend_latent_pages<Plan>, &config);
  if (error != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return result;
}

template <class Plan>
int known_clusters(int device) {
  static std::array<std::atomic<int>, 64> known = {};  // plus one
  if (device < 0 || device >= static_cast<int>(known.size())) return 0;
  int result = known[device].load(std::memory_order_relaxed);
  if (result == 0) known[device].store(result = resident_clusters<Plan>(device) + 1, std::memory_order_relaxed);
  return result - 1;
}

// Of the states, any rows at any address: [32 GiB] [16 bytes] [blocks of 64 columns] [8 rows] [64 columns].
bool make_map(const PagedAttentionRun& run, CUtensorMap& map) {
  const auto encode = map_encoder();
  const auto blocks = static_cast<cuuint64_t>(run.width / box_columns);
  const cuuint64_t sizes[] = {box_columns, box_rows, blocks, cuuint64_t{1} << map_bits, cuuint64_t{1} << 13};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(run.key_stride) * 2, box_columns * 2, 16,
                                cuuint64_t{16} << map_bits};
  const cuuint32_t box[] = {box_columns, box_rows,
                            static_cast<cuuint32_t>(with_plan(run, [](auto plan) { return plan.blocks; })), 1, 1};
  const cuuint32_t steps[] = {1, 1, 1, 1, 1};
  return encode && encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 5, reinterpret_cast<void*>(map_base), sizes, strides,
                          box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                          CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

// Of the queries: [blocks of 64 columns] [rows] [64 columns].
bool make_query_map(const PagedAttentionRun& run, CUtensorMap& map) {
  const auto encode = map_encoder();
  const auto blocks = static_cast<cuuint64_t>(run.width / box_columns);
  const auto row_bytes = static_cast<cuuint64_t>(run.width) * 2;
  const cuuint64_t sizes[] = {box_columns, static_cast<cuuint64_t>(run.query_rows), blocks, 1, 1};
  const cuuint64_t strides[] = {row_bytes, box_columns * 2, row_bytes, row_bytes};
  const cuuint32_t box[] = {box_columns, static_cast<cuuint32_t>(with_plan(run, [](auto plan) { return plan.rows; })),
                            1, 1, 1};
  const cuuint32_t steps[] = {1, 1, 1, 1, 1};
  return encode && encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 5, const_cast<void*>(run.queries), sizes, strides,
                          box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                          CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

}  // namespace

LatentCut latent_cut(const PagedAttentionRun& run) {
  if (!run.same || !run.bfloat16_queries || run.groups != 1 ||
      (run.width != 512 && run.width != 576 && run.width != 1024))
    return {};
  if (run.key_stride <= 0 || run.key_stride % 8 != 0) return {};
  return with_plan(run, [&](auto plan) -> LatentCut {
    using Plan = decltype(plan);
    const int rows = run.most_query_rows <= 16 ? 16 : Plan::rows;
    const int tiles = static_cast<int>((run.page_rows + Plan::tile - 1) / Plan::tile);
    return {known_clusters<Plan>(run.device), {rows, Plan::tile, tiles, true}};
  });
}

cudaError_t attend_latent(const PagedAttentionRun& run, const LatentCut& latent, Bfloat16* sums, float2* states,
                          cudaStream_t stream) {
  CUtensorMap states_map, query_map;
  if (!make_map(run, states_map) || !make_query_map(run, query_map)) return cudaErrorNotSupported;
  return with_plan(run, [&](auto plan) {
    using Plan = decltype(plan);
    Attributes attributes;
    const cudaLaunchConfig_t config = configuration<Plan>(latent.clusters, attributes, stream);
    return cudaLaunchKernelEx(&config, attend_latent_pages<Plan>, run, latent.cut, states_map, query_map, sums, states);
  });
}

}  // namespace cepe::ops::cuda
