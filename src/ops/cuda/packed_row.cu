// y = x W^T for one row of x in bfloat16 and a packed weight of 8 bits a value (ops/flat_weight.h), sums in float32.
// Bound: the weight's bytes, read once, over the memory's bandwidth. Times: docs/performance.md, products of one row.
// Design: products, blocks and chunks are those of packed_product.cu, the row standing in all eight columns. But chunks
// land in shared memory (cp.async): of loads to registers nvcc waits for a warp's whole batch, of copies a warp waits
// for the oldest chunk alone, and registers no longer limit how much is on its way. In a row of such products each
// begins while the one before ends, its chunks on their way by then. What must come in turn between two of them is kept
// short: all threads copy x to shared memory at once, and the rows' scales are asked for before the wait.
#include <array>
#include <atomic>

#include "ops/cuda/elements.cuh"
#include "ops/cuda/in_line.cuh"
#include "ops/cuda/packed_row.h"
#include "ops/cuda/packed_words.cuh"
#include "ops/cuda/tensor_core.cuh"
#include "ops/cuda/warp.cuh"

namespace cepe::ops::cuda {
namespace {

constexpr int warps = 8;  // of a block
constexpr int threads = warps * warp;

// Chunks that a lane has on their way; blocks that share a multiprocessor, as its registers allow, and at least, as its
// 228 KB of shared memory do (of a block's the system takes 1 KB, the sums less than another).
template <int chunks_ahead, int by_registers, int by_memory>
struct RowPlan {
  static constexpr int ahead = chunks_ahead;
  static constexpr int at_once = by_registers;
  static constexpr int most_shared = 228 * 1024 / by_memory - 2 * 1024;
  static constexpr int warp_slots = ahead * 2 * warp;  // 16 bytes each

  // The chunks, and x up to the end of the last one.
  static int64_t shared_bytes(const PackedRows& weight) { return warps * warp_slots * 16 + weight.chunks * 128; }
};

// Few blocks, two a multiprocessor at most, have twice as much on their way each; a third is the next product's.
template <class Use>
auto with_plan(const PackedProductRun& run, const Use& use) {
  if (blocks_for(run.weight.out_features, tile_rows) <= 2 * multiprocessors) return use(RowPlan<8, 3, 2>{});
  return use(RowPlan<4, 4, 4>{});
}

// 16 bytes that are read once, to shared memory in the background; their neighbours are wanted next.
__device__ void copy_once(uint4* to, const uint4* from) {
  asm volatile("cp.async.cg.shared.global.L2::256B [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from) : "memory");
}

// x to shared memory, zeros behind its last input: the weight is zero there, and what it meets must be finite. By way
// of registers, eight loads at once: a copy in the background would be waited for after the chunks.
__device__ void copy_inputs(const PackedProductRun& run, uint4* to) {
  constexpr int together = 8;
  const auto* from = static_cast<const uint4*>(run.x);
  const int given = static_cast<int>(run.weight.in_features) / 8, all = static_cast<int>(run.weight.chunks) * 8;
#pragma unroll 1
  for (int first = static_cast<int>(threadIdx.x); first < all; first += together * threads) {
    uint4 loaded[together];
#pragma unroll
    for (int i = 0; i < together; ++i) {
      loaded[i] = first + i * threads < given ? from[first + i * threads] : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int i = 0; i < together; ++i) {
      if (first + i * threads < all) to[first + i * threads] = loaded[i];
    }
  }
}

// Where a lane works: rows lane / 4 and lane / 4 + 8 of the block's, 16 bytes of each chunk. Only the lane itself reads
// what it copied, so nothing but its own copies is waited for, and a chunk that it read makes room for the next.
template <PackedFormat format, int ahead>
struct Lane {
  const uint4* next[2];  // of its warp's chunks of the rows
  uint4* slots;          // [ahead, 2, warp] from this lane's first on
  const uint4* x;        // copied
  int chunks, piece;

  __device__ Lane(const PackedRows& weight, uint4* warp_slots, const uint4* copied_x, int first_chunk)
      : x(copied_x), chunks(static_cast<int>(weight.chunks)) {
    const int lane = static_cast<int>(threadIdx.x) % warp;
    piece = lane % 4;
    slots = warp_slots + lane;
    for (int half = 0; half < 2; ++half) {
      const int64_t row = min(int64_t{blockIdx.x} * tile_rows + lane / 4 + 8 * half, weight.out_features - 1);
      next[half] = static_cast<const uint4*>(weight.data) + (row * weight.chunks + first_chunk) * 4 + piece;
    }
  }

  // `chunk` is the warp's next. Behind the last one an empty group: the wait counts groups.
  __device__ void begin(int slot, int chunk) {
    if (chunk < chunks) {
      copy_once(slots + slot * 2 * warp, next[0]);
      copy_once(slots + (slot * 2 + 1) * warp, next[1]);
    }
    next[0] += warps * 4;
    next[1] += warps * 4;
    end_of_copies();
  }

  // The oldest chunk on its way.
  __device__ void multiply_add(int slot, int chunk, float (&sums)[4]) const {
    wait_for_copies<ahead - 1>();
    const Words upper = words_at(slots + slot * 2 * warp), lower = words_at(slots + (slot * 2 + 1) * warp);
    const uint4* const inputs = x + chunk * 8 + piece * 2;
    const Words factors[2] = {words_at(inputs), words_at(inputs + 1)};
#pragma unroll
    for (int word = 0; word < 4; ++word) {
      uint32_t above[2], below[2];
      EightBits<format>::unpack(upper.at[word], above);
      EightBits<format>::unpack(lower.at[word], below);
      const Words& eight = factors[word / 2];
      multiply(sums, {above[0], below[0], above[1], below[1]}, eight.at[word % 2 * 2], eight.at[word % 2 * 2 + 1]);
    }
  }
};

template <PackedFormat format, class Plan>
__global__ void __launch_bounds__(threads, Plan::at_once) row_kernel(const PackedProductRun run) {
  extern __shared__ uint4 shared[];  // slots of each warp, then x
  __shared__ float partial[warps][tile_rows];
  const int lane = static_cast<int>(threadIdx.x) % warp;
  const int own_warp = static_cast<int>(threadIdx.x) / warp;
  uint4* const x = shared + warps * Plan::warp_slots;
  Lane<format, Plan::ahead> work(run.weight, shared + own_warp * Plan::warp_slots, x, own_warp);
  const int row = static_cast<int>(blockIdx.x * tile_rows + threadIdx.x);  // whose y this thread writes
  const bool writes = threadIdx.x < tile_rows && row < static_cast<int>(run.weight.out_features);
  const float scale = writes ? static_cast<const float*>(run.weight.scales)[row] : 0;
#pragma unroll
  for (int i = 0; i < Plan::ahead; ++i) work.begin(i, own_warp + i * warps);
  let_successor_begin();
  wait_for_predecessor();  // x may be its work; the weight is nobody's
  copy_inputs(run, x);
  __syncthreads();

  float sums[4] = {};
  for (int chunk = own_warp; chunk < work.chunks; chunk += warps) {
    const int slot = chunk / warps % Plan::ahead;
    work.multiply_add(slot, chunk, sums);
    work.begin(slot, chunk + Plan::ahead * warps);
  }

  if (lane % 4 == 0) {  // of eight equal columns the first
    partial[own_warp][lane / 4] = sums[0];
    partial[own_warp][lane / 4 + 8] = sums[2];
  }
  __syncthreads();
  if (!writes) return;
  float sum = 0;
#pragma unroll
  for (int other = 0; other < warps; ++other) sum += partial[other][threadIdx.x];
  // In this order: a product with the scale that needs no sum would be formed, and waited for, at the kernel's
  // beginning.
  static_cast<Bfloat16*>(run.y)[row] = narrowed<Bfloat16>(sum * EightBits<format>::row_factor * scale);
}

// Leave to use the plan's shared memory: once for each device.
template <PackedFormat format, class Plan>
cudaError_t allow_shared(int device) {
  static std::array<std::atomic<bool>, 64> allowed = {};
  const bool remembered = device >= 0 && device < static_cast<int>(allowed.size());
  if (remembered && allowed[device].load(std::memory_order_relaxed)) return cudaSuccess;
  const auto kernel = row_kernel<format, Plan>;
  cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Plan::most_shared);
  if (error == cudaSuccess) {
    error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
  }
  if (error == cudaSuccess && remembered) allowed[device].store(true, std::memory_order_relaxed);
  return error;
}

template <PackedFormat format>
cudaError_t launch_as(const PackedProductRun& run, cudaStream_t stream) {
  return with_plan(run, [&](auto plan) {
    using Chosen = decltype(plan);
    const cudaError_t error = allow_shared<format, Chosen>(run.device);
    if (error != cudaSuccess) return error;
    return launch_in_line(row_kernel<format, Chosen>, blocks_for(run.weight.out_features, tile_rows), threads,
                          static_cast<size_t>(plan.shared_bytes(run.weight)), stream, run);
  });
}

}  // namespace

bool is_row_product(const PackedProductRun& run) {
  return run.rows == 1 && run.weight.format != PackedFormat::q4_1 &&
         with_plan(run, [&](auto plan) { return plan.shared_bytes(run.weight) <= plan.most_shared; });
}

cudaError_t launch_row(const PackedProductRun& run, cudaStream_t stream) {
  return run.weight.format == PackedFormat::fp8_row ? launch_as<PackedFormat::fp8_row>(run, stream)
                                                    : launch_as<PackedFormat::int8_row>(run, stream);
}

}  // namespace cepe::ops::cuda
