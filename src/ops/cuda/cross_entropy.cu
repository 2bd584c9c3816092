// Cross-entropy of a row of logits, and its gradient in place: (softmax - one at the label) * scale.
// Bound: with the gradient a row is read and written once, 2 * rows * V elements over the memory's bandwidth (4.2 to
// 4.8 TB/s on an H200: 0.34 to 0.38 ms for 8192 x 49152 in bfloat16); without it read once.
// Design: a block a row, two blocks a multiprocessor, so that one reads while the other computes. The first pass keeps
// a running maximum and sum of exponentials in each thread, and the row, as far as it goes, in shared memory (112 KiB:
// 57344 values of bfloat16); the second pass turns what is there into the gradient and reads the rest again, which
// mostly comes from cache. All in float32; two exponentials a value take about two thirds of the time that its bytes
// take.
#include <cfloat>

#include "ops/cuda/elements.cuh"
#include "ops/cuda/launch.h"
#include "ops/cuda/warp.cuh"

namespace cepe::ops::cuda {
namespace {

constexpr int threads = 512;
constexpr int64_t most_stash_bytes = int64_t{112} << 10;
constexpr float log2_of_e = 1.44269504088896341f;

__device__ float exponential(float x) { return exp2f(x * log2_of_e); }

// Sum of e^(x - largest) over what was seen. The lowest number stands for nothing: its difference to any logit is
// finite or -infinity, never NaN.
struct RunningSum {
  float largest = -FLT_MAX, sum = 0;
};

__device__ RunningSum merged(RunningSum a, RunningSum b) {
  const float largest = fmaxf(a.largest, b.largest);
  return {largest, a.sum * exponential(a.largest - largest) + b.sum * exponential(b.largest - largest)};
}

__device__ RunningSum of_warp(RunningSum own) {
  for (int other = warp / 2; other > 0; other /= 2) {
    own = merged(own, {__shfl_xor_sync(0xffffffffu, own.largest, other), __shfl_xor_sync(0xffffffffu, own.sum, other)});
  }
  return own;
}

// Every thread calls it once, every thread gets the result.
__device__ RunningSum of_block(RunningSum own) {
  __shared__ float largest[threads / warp], sums[threads / warp];
  own = of_warp(own);
  const int lane = static_cast<int>(threadIdx.x) % warp;
  if (lane == 0) {
    largest[threadIdx.x / warp] = own.largest;
    sums[threadIdx.x / warp] = own.sum;
  }
  __syncthreads();
  return of_warp(lane < threads / warp ? RunningSum{largest[lane], sums[lane]} : RunningSum{});
}

// A logit as it is stored, its capped value, and how fast that one changes with it.
template <bool capped>
struct Bent {
  float value, slope;
  __device__ Bent(float logit, float cap) : value(logit), slope(1.0f) {
    if constexpr (capped) {
      const float bend = tanhf(logit / cap);
      value = bend * cap;
      slope = 1.0f - bend * bend;
    }
  }
};

template <class T, int count, bool capped>
__device__ void add(RunningSum& own, const Pack<T, count>& logits, float cap) {
  float values[count];
  float largest = own.largest;
#pragma unroll
  for (int i = 0; i < count; ++i) {
    values[i] = Bent<capped>(widened(logits.at[i]), cap).value;
    largest = fmaxf(largest, values[i]);
  }
  float sum = own.sum * exponential(own.largest - largest);
#pragma unroll
  for (int i = 0; i < count; ++i) sum += exponential(values[i] - largest);
  own = {largest, sum};
}

// What the second pass needs of a row.
struct Row {
  float log_sum, scale, cap;
  int64_t label;  // -1: none of the row's columns
};

template <class T, int count, bool capped>
__device__ Pack<T, count> gradient_of(const Pack<T, count>& logits, int64_t column, const Row& row) {
  Pack<T, count> results;
#pragma unroll
  for (int i = 0; i < count; ++i) {
    const Bent<capped> bent(widened(logits.at[i]), row.cap);
    const float away = exponential(bent.value - row.log_sum) - (column + i == row.label ? 1.0f : 0.0f);
    results.at[i] = narrowed<T>(away * bent.slope * row.scale);
  }
  return results;
}

template <class T, int count, bool capped>
__global__ void __launch_bounds__(threads, 2) cross_entropy_kernel(const CrossEntropyRows run, int64_t stashed) {
  extern __shared__ __align__(16) unsigned char stash_bytes[];
  auto* stash = reinterpret_cast<Pack<T, count>*>(stash_bytes);  // each thread reads what it wrote itself
  T* logits = static_cast<T*>(run.logits) + int64_t{blockIdx.x} * run.stride;
  const int64_t packs = run.vocabulary / count;
  const int64_t rest = packs * count + threadIdx.x;  // the column of the last, partial pack that this thread takes
  const int64_t label = run.labels[blockIdx.x];
  if (label == -100) {
    if (threadIdx.x == 0) run.losses[blockIdx.x] = 0;
    if (!run.gradient) return;
    Pack<T, count> zeros;
#pragma unroll
    for (int i = 0; i < count; ++i) zeros.at[i] = narrowed<T>(0.0f);
    for (int64_t pack = threadIdx.x; pack < packs; pack += threads) store<count>(logits + pack * count, zeros);
    if (rest < run.vocabulary) logits[rest] = narrowed<T>(0.0f);
    return;
  }
  const bool inside = label >= 0 && label < run.vocabulary;
  float labelled = 0;  // read before anything is overwritten: of_block waits for all
  if (threadIdx.x == 0 && inside) labelled = Bent<capped>(widened(logits[label]), run.cap).value;

  RunningSum own;
  for (int64_t pack = threadIdx.x; pack < packs; pack += 2 * threads) {
    const int64_t next = pack + threads;
    const bool both = next < packs;
    const Pack<T, count> first = load<count>(logits + pack * count);
    Pack<T, count> second = first;
    if (both) second = load<count>(logits + next * count);
    if (pack < stashed) stash[pack] = first;
    add<T, count, capped>(own, first, run.cap);
    if (!both) continue;
    if (next < stashed) stash[next] = second;
    add<T, count, capped>(own, second, run.cap);
  }
  if (rest < run.vocabulary) add<T, 1, capped>(own, load<1>(logits + rest), run.cap);
  const RunningSum all = of_block(own);
  const Row row = {all.largest + logf(all.sum), inside ? *run.scale : nanf(""), run.cap, inside ? label : -1};
  if (threadIdx.x == 0) run.losses[blockIdx.x] = inside ? row.log_sum - labelled : nanf("");
  if (!run.gradient) return;
  for (int64_t pack = threadIdx.x; pack < packs; pack += threads) {
    const Pack<T, count> values = pack < stashed ? stash[pack] : load<count>(logits + pack * count);
    store<count>(logits + pack * count, gradient_of<T, count, capped>(values, pack * count, row));
  }
  if (rest < run.vocabulary) store<1>(logits + rest, gradient_of<T, 1, capped>(load<1>(logits + rest), rest, row));
}

template <class T, int count, bool capped>
cudaError_t launch_with(const CrossEntropyRows& run, cudaStream_t stream) {
  constexpr int64_t pack_bytes = count * static_cast<int64_t>(sizeof(T));
  const int64_t packs = run.gradient ? run.vocabulary / count : 0;
  const int64_t stashed = packs * pack_bytes < most_stash_bytes ? packs : most_stash_bytes / pack_bytes;
  const auto kernel = cross_entropy_kernel<T, count, capped>;
  const auto bytes = static_cast<size_t>(stashed * pack_bytes);
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(most_stash_bytes));
  if (error != cudaSuccess) return error;
  kernel<<<static_cast<unsigned>(run.rows), threads, bytes, stream>>>(run, stashed);
  return cudaGetLastError();
}

template <class T, bool capped>
cudaError_t launch_as(const CrossEntropyRows& run, cudaStream_t stream) {
  const bool aligned = is_wide_aligned(run.logits) && run.stride % wide<T> == 0;
  return aligned ? launch_with<T, wide<T>, capped>(run, stream) : launch_with<T, 1, capped>(run, stream);
}

template <class T>
cudaError_t launch_of(const CrossEntropyRows& run, cudaStream_t stream) {
  return run.cap > 0 ? launch_as<T, true>(run, stream) : launch_as<T, false>(run, stream);
}

}  // namespace

cudaError_t launch(const CrossEntropyRows& run, cudaStream_t stream) {
  return run.bfloat16 ? launch_of<Bfloat16>(run, stream) : launch_of<float>(run, stream);
}

}  // namespace cepe::ops::cuda
