// Launching kernels that fill Hopper's multiprocessors (clusters of thread blocks, launched in line), and the tensor
// maps by which they read pages.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <array>
#include <atomic>
#include <cstdint>

#include "ops/cuda/kernels.h"
#include "ops/cuda/latent_tiles.cuh"

namespace cepe::ops::cuda {

struct HopperShape {
  int cluster, threads, shared_bytes;
};

using HopperAttributes = std::array<cudaLaunchAttribute, 2>;

inline cudaLaunchConfig_t hopper_configuration(const HopperShape& shape, int clusters, HopperAttributes& attributes,
                                               cudaStream_t stream) {
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim.x = static_cast<unsigned>(shape.cluster);
  attributes[0].val.clusterDim.y = attributes[0].val.clusterDim.z = 1;
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;  // in_line.cuh
  attributes[1].val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t result = {};
  result.gridDim = dim3(static_cast<unsigned>(clusters * shape.cluster));
  result.blockDim = dim3(static_cast<unsigned>(shape.threads));
  result.dynamicSmemBytes = static_cast<size_t>(shape.shared_bytes);
  result.stream = stream;
  result.attrs = attributes.data();
  result.numAttrs = attributes.size();
  return result;
}

// nullptr: a driver without it.
inline decltype(&cuTensorMapEncodeTiled) map_encoder() {
  static const auto encode = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult state = {};
    const cudaError_t error =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &state);
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(error == cudaSuccess ? found : nullptr);
  }();
  return encode;
}

// As many clusters as the device holds at one time; 0: it has none of their instructions, or of their memory.
template <class Kernel>
int resident_clusters(Kernel* kernel, const HopperShape& shape, int device) {
  int major = 0, processors = 0, result = 0;
  cudaError_t error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error != cudaSuccess || major != 9 || !map_encoder()) return 0;
  error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess)
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shape.shared_bytes);
  cudaFuncAttributes attributes_of_kernel = {};
  if (error == cudaSuccess) error = cudaFuncGetAttributes(&attributes_of_kernel, kernel);
  // An empty one: compiled for another architecture.
  if (error == cudaSuccess && attributes_of_kernel.numRegs < 64) return 0;
  HopperAttributes attributes;
  const cudaLaunchConfig_t config = hopper_configuration(shape, processors / shape.cluster, attributes, nullptr);
  if (error == cudaSuccess) error = cudaOccupancyMaxActiveClusters(&result, kernel, &config);
  if (error != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return result;
}

// The same, asked once a device. `Plan` tells kernels of one type apart.
template <class Plan, class Kernel>
int known_clusters(Kernel* kernel, const HopperShape& shape, int device) {
  static std::array<std::atomic<int>, 64> known = {};  // plus one
  if (device < 0 || device >= static_cast<int>(known.size())) return 0;
  int result = known[static_cast<size_t>(device)].load(std::memory_order_relaxed);
  if (result == 0) {
    result = resident_clusters(kernel, shape, device) + 1;
    known[static_cast<size_t>(device)].store(result, std::memory_order_relaxed);
  }
  return result - 1;
}

// A tensor map's five dimensions: elements of each, bytes from one to the next of all but the first, and of a box.
struct MapShape {
  std::array<cuuint64_t, 5> sizes;
  std::array<cuuint64_t, 4> strides;
  std::array<cuuint32_t, 5> box;
};

inline bool make_map(CUtensorMap& map, void* from, CUtensorMapDataType type, const MapShape& shape,
                     CUtensorMapSwizzle swizzle) {
  constexpr std::array<cuuint32_t, 5> steps = {1, 1, 1, 1, 1};
  const auto encode = map_encoder();
  return encode && encode(&map, type, 5, from, shape.sizes.data(), shape.strides.data(), shape.box.data(), steps.data(),
                          CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_NONE,
                          CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

// Rows of bfloat16 [rows, columns], `stride` elements from one to the next, in boxes of `box` rows x 64 columns.
inline bool make_rows_map(const void* from, int64_t rows, int64_t columns, int64_t stride, int box, CUtensorMap& map) {
  const auto row_bytes = static_cast<cuuint64_t>(stride) * 2;
  const MapShape shape = {{static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows), 1, 1, 1},
                          {row_bytes, row_bytes, row_bytes, row_bytes},
                          {box_columns, static_cast<cuuint32_t>(box), 1, 1, 1}};
  return make_map(map, const_cast<void*>(from), CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, shape, CU_TENSOR_MAP_SWIZZLE_128B);
}
// The same, contiguous.
inline bool make_matrix_map(const void* from, int64_t rows, int64_t columns, int box, CUtensorMap& map) {
  return make_rows_map(from, rows, columns, columns, box, map);
}

// Of states, any rows at any address: [32 GiB] [16 bytes] [atoms] [`rows`] [an atom's columns, of 64 or 128 bytes]; a
// box has `box_atoms`. Values of 8 bits go as pairs.
inline bool make_states_map(const PagedAttentionRun& run, int atom_bytes, int box_atoms, CUtensorMap& map,
                            int rows = box_rows) {
  const auto row_bytes = static_cast<cuuint64_t>(run.key_stride) * (run.int8_pages ? 1 : 2);
  const auto atom = static_cast<cuuint64_t>(atom_bytes),
             bytes = static_cast<cuuint64_t>(run.width) * row_bytes / static_cast<cuuint64_t>(run.key_stride);
  const auto high = static_cast<cuuint32_t>(rows);
  const MapShape shape = {{atom / 2, high, bytes / atom, cuuint64_t{1} << map_bits, cuuint64_t{1} << 13},
                          {row_bytes, atom, 16, cuuint64_t{16} << map_bits},
                          {static_cast<cuuint32_t>(atom / 2), high, static_cast<cuuint32_t>(box_atoms), 1, 1}};
  return make_map(map, reinterpret_cast<void*>(map_base), CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, shape,
                  atom == 64 ? CU_TENSOR_MAP_SWIZZLE_64B : CU_TENSOR_MAP_SWIZZLE_128B);
}

}  // namespace cepe::ops::cuda
