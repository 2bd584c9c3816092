// y = x W^T for one row of x in bfloat16 and a weight in bfloat16 or packed in 8 bits a value (ops/flat_weight.h),
// sums in float32.
// Bound: the weight's bytes, read once, over the memory's bandwidth. Times: docs/performance.md, products of one row.
// Design: products, blocks and chunks are those of packed_product.cu, the row standing in all eight columns; a chunk of
// bfloat16 is 32 inputs. But chunks land in shared memory (cp.async): of loads to registers nvcc waits for a warp's
// whole batch, of copies a warp waits for the oldest chunk alone, and registers no longer limit how much is on its way.
// In a row of such products each begins while the one before ends, its chunks on their way by then. What must come in
// turn between two of them is kept short: all threads copy x to shared memory at once, and the rows' scales are asked
// for before the wait.
#include <array>
#include <atomic>

#include "ops/cuda/elements.cuh"
#include "ops/cuda/in_line.cuh"
#include "ops/cuda/one_row.h"
#include "ops/cuda/packed_words.cuh"
#include "ops/cuda/tensor_core.cuh"
#include "ops/cuda/warp.cuh"

namespace cepe::ops::cuda {
namespace {

constexpr int warps = 8;  // of a block
constexpr int threads = warps * warp;

struct RowRun {
  const uint4* weight;  // [out, chunks, 4]
  const float* scales;  // [out], of 8 bits
  const uint4* x;       // [in]
  Bfloat16* y;
  int outputs, inputs, chunks;
  int device;
};

// What 16 bytes of a row of the weight are. x_fours: 16 bytes of x that they meet.
template <PackedFormat format>
struct EightBitValues {
  static constexpr bool scaled = true;
  static constexpr int x_fours = 2;
  static constexpr float row_factor = EightBits<format>::row_factor;

  __device__ static void multiply_add(const Words& upper, const Words& lower, const Words (&x)[2], float (&sums)[4]) {
#pragma unroll
    for (int word = 0; word < 4; ++word) {
      uint32_t above[2], below[2];
      EightBits<format>::unpack(upper.at[word], above);
      EightBits<format>::unpack(lower.at[word], below);
      const Words& eight = x[word / 2];
      multiply(sums, {above[0], below[0], above[1], below[1]}, eight.at[word % 2 * 2], eight.at[word % 2 * 2 + 1]);
    }
  }
};
struct Bfloat16Values {
  static constexpr bool scaled = false;
  static constexpr int x_fours = 1;
  static constexpr float row_factor = 1;

  __device__ static void multiply_add(const Words& upper, const Words& lower, const Words (&x)[1], float (&sums)[4]) {
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
      multiply(sums, {upper.at[i], lower.at[i], upper.at[i + 1], lower.at[i + 1]}, x[0].at[i], x[0].at[i + 1]);
    }
  }
};

// Chunks that a lane has on their way; blocks that share a multiprocessor, as its registers allow, and at least, as its
// 228 KB of shared memory do (of a block's the system takes 1 KB, the sums less than another).
template <int chunks_ahead, int by_registers, int by_memory>
struct RowPlan {
  static constexpr int ahead = chunks_ahead;
  static constexpr int at_once = by_registers;
  static constexpr int most_shared = 228 * 1024 / by_memory - 2 * 1024;
  static constexpr int warp_slots = ahead * 2 * warp;  // 16 bytes each

  // The chunks, and x up to the end of the last one.
  template <class Values>
  static int64_t shared_bytes(const RowRun& run) {
    return (warps * warp_slots + run.chunks * 4 * Values::x_fours) * int64_t{16};
  }
  template <class Values>
  static bool fits(const RowRun& run) {
    return shared_bytes<Values>(run) <= most_shared;
  }
};

// Few blocks, two a multiprocessor at most, have twice as much on their way each; a third is the next product's. Of
// many, four share one, with as much on its way as fits beside x.
template <class Values, class Use>
auto with_plan(const RowRun& run, const Use& use) {
  using Few = RowPlan<8, 3, 2>;
  using Many = RowPlan<5, 4, 4>;
  using ManyBesideLongRows = RowPlan<4, 4, 4>;
  if (blocks_for(run.outputs, tile_rows) <= 2 * multiprocessors) return use(Few{});
  return Many::template fits<Values>(run) ? use(Many{}) : use(ManyBesideLongRows{});
}

// 16 bytes that are read once, to shared memory in the background; their neighbours are wanted next. They are the first
// to leave the second-level cache, where the states of the context, which the next layer reads again, stay the longer.
__device__ void copy_once(uint4* to, const uint4* from) {
  asm volatile(
      "{\n.reg .b64 policy;\n"
      "createpolicy.fractional.L2::evict_first.b64 policy, 1.0;\n"
      "cp.async.cg.shared.global.L2::cache_hint.L2::256B [%0], [%1], 16, policy;\n}" ::"r"(shared_address(to)),
      "l"(from)
      : "memory");
}

// x to shared memory, zeros behind its last input: the weight is zero there, and what it meets must be finite. By way
// of registers, eight loads at once: a copy in the background would be waited for after the chunks.
template <class Values>
__device__ void copy_inputs(const RowRun& run, uint4* to) {
  constexpr int together = 8;
  const int given = run.inputs / 8, all = run.chunks * 4 * Values::x_fours;
#pragma unroll 1
  for (int first = static_cast<int>(threadIdx.x); first < all; first += together * threads) {
    uint4 loaded[together];
#pragma unroll
    for (int i = 0; i < together; ++i) {
      loaded[i] = first + i * threads < given ? run.x[first + i * threads] : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int i = 0; i < together; ++i) {
      if (first + i * threads < all) to[first + i * threads] = loaded[i];
    }
  }
}

// Where a lane works: rows lane / 4 and lane / 4 + 8 of the block's, 16 bytes of each chunk. Only the lane itself reads
// what it copied, so nothing but its own copies is waited for, and a chunk that it read makes room for the next.
template <class Values, int ahead>
struct Lane {
  const uint4* next[2];  // of its warp's chunks of the rows
  uint4* slots;          // [ahead, 2, warp] from this lane's first on
  const uint4* x;        // copied
  int chunks, piece;

  __device__ Lane(const RowRun& run, uint4* warp_slots, const uint4* copied_x, int first_chunk)
      : x(copied_x), chunks(run.chunks) {
    const int lane = static_cast<int>(threadIdx.x) % warp;
    piece = lane % 4;
    slots = warp_slots + lane;
    for (int half = 0; half < 2; ++half) {
      const int row = min(static_cast<int>(blockIdx.x) * tile_rows + lane / 4 + 8 * half, run.outputs - 1);
      next[half] = run.weight + (int64_t{row} * chunks + first_chunk) * 4 + piece;
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
    const uint4* const inputs = x + (chunk * 4 + piece) * Values::x_fours;
    Words factors[Values::x_fours];
#pragma unroll
    for (int i = 0; i < Values::x_fours; ++i) factors[i] = words_at(inputs + i);
    Values::multiply_add(upper, lower, factors, sums);
  }
};

template <class Values, class Plan>
__global__ void __launch_bounds__(threads, Plan::at_once) one_row_kernel(const RowRun run) {
  extern __shared__ uint4 shared[];  // slots of each warp, then x
  __shared__ float partial[warps][tile_rows];
  const int lane = static_cast<int>(threadIdx.x) % warp;
  const int own_warp = static_cast<int>(threadIdx.x) / warp;
  uint4* const x = shared + warps * Plan::warp_slots;
  Lane<Values, Plan::ahead> work(run, shared + own_warp * Plan::warp_slots, x, own_warp);
  const int row = static_cast<int>(blockIdx.x * tile_rows + threadIdx.x);  // whose y this thread writes
  const bool writes = threadIdx.x < tile_rows && row < run.outputs;
  const float scale = Values::scaled && writes ? run.scales[row] : 1;
#pragma unroll
  for (int i = 0; i < Plan::ahead; ++i) work.begin(i, own_warp + i * warps);
  let_successor_begin();
  wait_for_predecessor();  // x may be its work; the weight is nobody's
  copy_inputs<Values>(run, x);
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
  run.y[row] = narrowed<Bfloat16>(sum * Values::row_factor * scale);
}

// Leave to use the plan's shared memory: once for each device.
template <class Values, class Plan>
cudaError_t allow_shared(int device) {
  static std::array<std::atomic<bool>, 64> allowed = {};
  const bool remembered = device >= 0 && device < static_cast<int>(allowed.size());
  if (remembered && allowed[device].load(std::memory_order_relaxed)) return cudaSuccess;
  const auto kernel = one_row_kernel<Values, Plan>;
  cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Plan::most_shared);
  if (error == cudaSuccess) {
    error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
  }
  if (error == cudaSuccess && remembered) allowed[device].store(true, std::memory_order_relaxed);
  return error;
}

template <class Values>
cudaError_t launch_as(const RowRun& run, cudaStream_t stream) {
  return with_plan<Values>(run, [&](auto plan) {
    using Plan = decltype(plan);
    const cudaError_t error = allow_shared<Values, Plan>(run.device);
    if (error != cudaSuccess) return error;
    return launch_in_line(one_row_kernel<Values, Plan>, blocks_for(run.outputs, tile_rows), threads,
                          static_cast<size_t>(Plan::template shared_bytes<Values>(run)), stream, run);
  });
}

template <class Values>
bool fits(const RowRun& run) {
  return with_plan<Values>(run, [&](auto plan) { return plan.template fits<Values>(run); });
}

RowRun row_run(const PackedProductRun& run) {
  return {static_cast<const uint4*>(run.weight.data), static_cast<const float*>(run.weight.scales),
          static_cast<const uint4*>(run.x),           static_cast<Bfloat16*>(run.y),
          static_cast<int>(run.weight.out_features),  static_cast<int>(run.weight.in_features),
          static_cast<int>(run.weight.chunks),        run.device};
}

constexpr int dense_chunk = 32;  // inputs

RowRun row_run(const RowProductRun& run) {
  return {static_cast<const uint4*>(run.weight),
          nullptr,
          static_cast<const uint4*>(run.x),
          static_cast<Bfloat16*>(run.y),
          static_cast<int>(run.outputs),
          static_cast<int>(run.inputs),
          static_cast<int>(run.inputs / dense_chunk),
          run.device};
}

}  // namespace

bool is_one_row(const PackedProductRun& run) {
  return run.rows == 1 && run.weight.format != PackedFormat::q4_1 &&
         fits<EightBitValues<PackedFormat::int8_row>>(row_run(run));
}

bool is_one_row(const RowProductRun& run) {
  return run.rows == 1 && run.groups == 1 && run.inputs % dense_chunk == 0 && run.outputs < most_elements &&
         fits<Bfloat16Values>(row_run(run));
}

cudaError_t launch_one_row(const PackedProductRun& run, cudaStream_t stream) {
  return run.weight.format == PackedFormat::fp8_row
             ? launch_as<EightBitValues<PackedFormat::fp8_row>>(row_run(run), stream)
             : launch_as<EightBitValues<PackedFormat::int8_row>>(row_run(run), stream);
}

cudaError_t launch_one_row(const RowProductRun& run, cudaStream_t stream) {
  return launch_as<Bfloat16Values>(row_run(run), stream);
}

}  // namespace cepe::ops::cuda
