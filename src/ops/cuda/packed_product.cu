// y = x W^T for up to 16 rows of x in bfloat16 and a packed weight (ops/flat_weight.h), sums in float32.
// Bound: the weight's bytes, read once, over the memory's bandwidth (4.2 TB/s on an H200: 12 us for 12288 x 4096 in
// 8 bits, 7.5 us in 4); x and y are small beside them.
// Design: the tensor cores multiply (m16n8k16, the weight's rows as A, x as B), not for their rate but because a value
// then costs two or three instructions from its bytes to the sum, and no sum over lanes is needed. A block takes 16
// rows of the weight, its warps take chunks of 64 bytes of them in turn. The sum over inputs may run in any order: a
// lane's 16 bytes of a chunk, as they stand, are its operands of four (8 bits) or eight (4 bits) products, with the
// inputs of x to match, 16 bytes at a time too. Several chunks a lane are on their way at once. Where x has fewer rows
// than 8 or 16, its last one stands in for the others and what comes of that is not stored. One row and 8 bits:
// one_row.cu, where x fits.
//
// q4_1: a block's products are summed by themselves, then y += d * sum(q x) + m * sum(x); sum(x) is one more product,
// by ones. q comes as 128 + q, so m is taken less by 128 d.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "ops/cuda/elements.cuh"
#include "ops/cuda/in_line.cuh"
#include "ops/cuda/launch.h"
#include "ops/cuda/one_row.h"
#include "ops/cuda/packed_words.cuh"
#include "ops/cuda/tensor_core.cuh"
#include "ops/cuda/warp.cuh"

namespace cepe::ops::cuda {
namespace {

constexpr int warps = 8;  // of a block

// Chunks that a lane has on their way, and blocks that share a multiprocessor: as much as the registers hold without
// spills (nvcc 13.0: up to 80 and 128). 24 warps of four chunks are 96 KB on their way, 16 of two 32 KB and the scales;
// 4.2 TB/s and a microsecond need 32 KB.
template <PackedFormat format, int tiles>
inline constexpr int chunks_ahead = (tiles > 1 ? 1 : 2) * (format == PackedFormat::q4_1 ? 1 : 2);
template <PackedFormat format>
inline constexpr int blocks_at_once = format == PackedFormat::q4_1 ? 2 : 3;

// 16 bytes that are read once: they need no place in the first cache, and their neighbours are wanted next.
__device__ Words load_once(const uint4* from) {
  Words words;
  asm("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(words.at[0]), "=r"(words.at[1]), "=r"(words.at[2]), "=r"(words.at[3])
      : "l"(from));
  return words;
}

// What a lane reads of two rows' chunk.
template <PackedFormat format>
struct Chunk {
  Words values[2];
};
template <>
struct Chunk<PackedFormat::q4_1> {
  Words values[2];
  Words scales[2];  // of the four blocks: float16 d, m
};

// Where a lane works: rows lane / 4 and lane / 4 + 8 of the weight's tile, 16 bytes of each chunk; row lane / 4 of each
// of the tiles of eight rows of x.
template <PackedFormat format, int tiles>
struct Lane {
  const PackedProductRun& run;
  const uint4* values[2];  // of the rows
  int first_chunk[2];      // where their scales are; fewer registers than pointers
  const Bfloat16* x[tiles];
  int piece;

  __device__ explicit Lane(const PackedProductRun& given) : run(given) {
    const int lane = static_cast<int>(threadIdx.x) % warp;
    piece = lane % 4;
    for (int half = 0; half < 2; ++half) {
      const int64_t row = min(int64_t{blockIdx.x} * tile_rows + lane / 4 + 8 * half, given.weight.out_features - 1);
      first_chunk[half] = static_cast<int>(row * given.weight.chunks);
      values[half] = static_cast<const uint4*>(given.weight.data) + row * given.weight.chunks * 4 + piece;
    }
    for (int tile = 0; tile < tiles; ++tile) {
      const int64_t row = min(int64_t{tile * 8 + lane / 4}, given.rows - 1);
      x[tile] = static_cast<const Bfloat16*>(given.x) + row * given.weight.in_features;
    }
  }

  // Zeros behind the last chunk.
  __device__ Chunk<format> load(int chunk) const {
    Chunk<format> loaded = {};
    if (chunk >= static_cast<int>(run.weight.chunks)) return loaded;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      loaded.values[half] = load_once(values[half] + int64_t{chunk} * 4);
      if constexpr (format == PackedFormat::q4_1)
        loaded.scales[half] = load_once(static_cast<const uint4*>(run.weight.scales) + first_chunk[half] + chunk);
    }
    return loaded;
  }

  // Eight inputs of x from `first` on. The weight is zero behind the last one, where any of x will do.
  __device__ Words inputs(int tile, int first) const {
    return words_at(x[tile] + (first < static_cast<int>(run.weight.in_features) ? first : 0));
  }

  __device__ void multiply_add(const Chunk<format>& loaded, int chunk, float (&sums)[tiles][4]) const {
    if constexpr (format == PackedFormat::q4_1) {
      add_blocks(loaded, chunk, sums);
    } else {
      add_row_values(loaded, chunk, sums);
    }
  }

  __device__ void add_row_values(const Chunk<format>& loaded, int chunk, float (&sums)[tiles][4]) const {
    const int first = chunk * chunk_inputs<format> + piece * 16;
    Words factors[tiles][2];
#pragma unroll
    for (int tile = 0; tile < tiles; ++tile) {
      factors[tile][0] = inputs(tile, first);
      factors[tile][1] = inputs(tile, first + 8);
    }
#pragma unroll
    for (int word = 0; word < 4; ++word) {
      uint32_t above[2], below[2];
      EightBits<format>::unpack(loaded.values[0].at[word], above);
      EightBits<format>::unpack(loaded.values[1].at[word], below);
      const uint32_t weights[4] = {above[0], below[0], above[1], below[1]};
#pragma unroll
      for (int tile = 0; tile < tiles; ++tile) {
        const Words& eight = factors[tile][word / 2];
        multiply(sums[tile], weights, eight.at[word % 2 * 2], eight.at[word % 2 * 2 + 1]);
      }
    }
  }

  __device__ void add_blocks(const Chunk<format>& loaded, int chunk, float (&sums)[tiles][4]) const {
    constexpr uint32_t one_pair = 0x3f803f80;
    constexpr uint32_t ones[4] = {one_pair, one_pair, one_pair, one_pair};
#pragma unroll
    for (int block = 0; block < 4; ++block) {
      uint32_t above[4], below[4];
      unpack_nibbles(loaded.values[0].at[block], above);
      unpack_nibbles(loaded.values[1].at[block], below);
      const uint32_t first_half[4] = {above[0], below[0], above[1], below[1]};
      const uint32_t second_half[4] = {above[2], below[2], above[3], below[3]};
      float2 scale[2];  // d, and m less the nibbles' excess
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        scale[half] = __half22float2(reinterpret_cast<const __half2&>(loaded.scales[half].at[block]));
        scale[half].y -= nibble_excess * scale[half].x;
      }
#pragma unroll
      for (int tile = 0; tile < tiles; ++tile) {
        const Words eight = inputs(tile, chunk * chunk_inputs<format> + block * block_inputs + piece * 8);
        float products[4] = {}, inputs_alone[4] = {};
        multiply(products, first_half, eight.at[0], eight.at[1]);
        multiply(products, second_half, eight.at[2], eight.at[3]);
        multiply(inputs_alone, ones, eight.at[0], eight.at[1]);
        multiply(inputs_alone, ones, eight.at[2], eight.at[3]);
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[tile][i] += scale[i / 2].x * products[i] + scale[i / 2].y * inputs_alone[i];
      }
    }
  }
};

template <PackedFormat format>
__device__ float row_scale(const PackedRows& weight, int64_t row) {
  if constexpr (format == PackedFormat::q4_1) {
    return 1;
  } else {
    return static_cast<const float*>(weight.scales)[row] * EightBits<format>::row_factor;
  }
}

template <PackedFormat format, int tiles, int ahead, int at_once>
__global__ void __launch_bounds__(warps* warp, at_once) product_kernel(const PackedProductRun run) {
  __shared__ float partial[warps][tiles * 8][tile_rows];
  const int lane = static_cast<int>(threadIdx.x) % warp;
  const int own_warp = static_cast<int>(threadIdx.x) / warp;
  const auto chunks = static_cast<int>(run.weight.chunks);
  const Lane<format, tiles> work(run);
  float sums[tiles][4] = {};
  Chunk<format> loaded[ahead];
#pragma unroll
  for (int i = 0; i < ahead; ++i) loaded[i] = work.load(own_warp + i * warps);
  let_successor_begin();
  wait_for_predecessor();  // x may be its work; the weight is nobody's
  for (int first = own_warp; first < chunks; first += ahead * warps) {
#pragma unroll
    for (int i = 0; i < ahead; ++i) work.multiply_add(loaded[i], first + i * warps, sums);
#pragma unroll
    for (int i = 0; i < ahead; ++i) loaded[i] = work.load(first + (ahead + i) * warps);
  }
#pragma unroll
  for (int tile = 0; tile < tiles; ++tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      partial[own_warp][tile * 8 + lane % 4 * 2 + i % 2][lane / 4 + i / 2 * 8] = sums[tile][i];
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < tiles * 8 * tile_rows; i += warps * warp) {
    const int column = i / tile_rows;
    const int64_t row = int64_t{blockIdx.x} * tile_rows + i % tile_rows;
    if (column >= run.rows || row >= run.weight.out_features) continue;
    float sum = 0;
    for (int other = 0; other < warps; ++other) sum += partial[other][column][i % tile_rows];
    static_cast<Bfloat16*>(run.y)[column * run.weight.out_features + row] =
        narrowed<Bfloat16>(sum * row_scale<format>(run.weight, row));
  }
}

template <PackedFormat format>
cudaError_t launch_as(const PackedProductRun& run, cudaStream_t stream) {
  constexpr int threads = warps * warp;
  const unsigned blocks = blocks_for(run.weight.out_features, tile_rows);
  if (run.rows <= 8) {
    // Few blocks of many chunks: two a multiprocessor at most, and then each has twice as much on its way.
    if constexpr (format != PackedFormat::q4_1) {
      constexpr int ahead = 2 * chunks_ahead<format, 1>;
      if (blocks <= 2 * multiprocessors && run.weight.chunks >= 128)
        return launch_in_line(product_kernel<format, 1, ahead, 2>, blocks, threads, 0, stream, run);
    }
    return launch_in_line(product_kernel<format, 1, chunks_ahead<format, 1>, blocks_at_once<format>>, blocks, threads,
                          0, stream, run);
  }
  return launch_in_line(product_kernel<format, 2, chunks_ahead<format, 2>, blocks_at_once<format>>, blocks, threads, 0,
                        stream, run);
}

}  // namespace

cudaError_t launch(const PackedProductRun& run, cudaStream_t stream) {
  if (is_one_row(run)) return launch_one_row(run, stream);
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
