// Rows of a packed weight (ops/flat_weight.h) as dense float32 or bfloat16.
// Bound: packed bytes read once and dense ones written once; a piece that stays in the second cache costs less.
// Design: a thread takes the 16 bytes that one takes in packed_product.cu, and writes 16 or four times 8 neighbours.
#include <cuda_fp16.h>

#include "ops/cuda/elements.cuh"
#include "ops/cuda/launch.h"
#include "ops/cuda/packed_words.cuh"

namespace cepe::ops::cuda {
namespace {

// Eight values to inputs [first, first + 8) of a row, as many as there are.
template <class T>
__device__ void store_eight(T* row, int64_t first, int64_t width, const float (&values)[8]) {
  if (width % 8 == 0) {  // then each eight begin at a multiple of 16 bytes
    if (first >= width) return;
    constexpr int count = wide<T>;
#pragma unroll
    for (int part = 0; part < 8; part += count) {
      Pack<T, count> pack;
#pragma unroll
      for (int i = 0; i < count; ++i) pack.at[i] = narrowed<T>(values[part + i]);
      store<count>(row + first + part, pack);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    if (first + i < width) row[first + i] = narrowed<T>(values[i]);
  }
}

template <PackedFormat format, class T>
__global__ void __launch_bounds__(256) unpack_kernel(const UnpackRun run) {
  const PackedRows& weight = run.weight;
  const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const int64_t place = thread / (weight.chunks * 4), piece = thread % (weight.chunks * 4);
  if (place >= run.rows) return;
  const int64_t row = run.first + place;
  const uint4 four =
      __ldg(reinterpret_cast<const uint4*>(weight.data) + row * weight.chunks * (chunk_bytes / 16) + piece);
  const uint32_t words[4] = {four.x, four.y, four.z, four.w};
  T* to = static_cast<T*>(run.to) + place * weight.in_features;
  float values[8];
  if constexpr (format == PackedFormat::q4_1) {
    const int64_t chunk = piece / 4;
    const auto* scales = static_cast<const __half2*>(weight.scales) + (row * weight.chunks + chunk) * 4;
#pragma unroll
    for (int block = 0; block < 4; ++block) {
      const float2 scale = __half22float2(scales[block]);
      uint32_t pairs[4];
      unpack_nibbles(words[block], pairs);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float quant = (i % 2 == 0 ? low_of(pairs[i / 2]) : high_of(pairs[i / 2])) - nibble_excess;
        values[i] = __fadd_rn(__fmul_rn(quant, scale.x), scale.y);  // rounded as on the CPU
      }
      store_eight(to, chunk * chunk_inputs<format> + block * block_inputs + piece % 4 * 8, weight.in_features, values);
    }
  } else {
    const float scale = static_cast<const float*>(weight.scales)[row] * EightBits<format>::row_factor;
#pragma unroll
    for (int word = 0; word < 4; ++word) {
      uint32_t pairs[2];
      EightBits<format>::unpack(words[word], pairs);
#pragma unroll
      for (int i = 0; i < 4; ++i)
        values[word % 2 * 4 + i] = (i % 2 == 0 ? low_of(pairs[i / 2]) : high_of(pairs[i / 2])) * scale;
      if (word % 2 == 1) store_eight(to, piece * 16 + word / 2 * 8, weight.in_features, values);
    }
  }
}

template <PackedFormat format>
cudaError_t launch_as(const UnpackRun& run, cudaStream_t stream) {
  constexpr int threads = 256;
  const unsigned blocks = blocks_for(run.rows * run.weight.chunks * 4, threads);
  if (run.bfloat16) {
    unpack_kernel<format, Bfloat16><<<blocks, threads, 0, stream>>>(run);
  } else {
    unpack_kernel<format, float><<<blocks, threads, 0, stream>>>(run);
  }
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch(const UnpackRun& run, cudaStream_t stream) {
  switch (run.weight.format) {
    case PackedFormat::fp8_row:
      return launch_as<PackedFormat::fp8_row>(run, stream);
    case PackedFormat::int8_row:
      return launch_as<PackedFormat::int8_row>(run, stream);
    case PackedFormat::q4_1:
      return launch_as<PackedFormat::q4_1>(run, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace cepe::ops::cuda
