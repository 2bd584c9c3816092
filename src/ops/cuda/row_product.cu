// y = x W^T for one to four rows x: see ops/row_product.h.
// Bound: the bytes of W over the memory's bandwidth; x and y are nothing beside it. Figures: docs/performance.md.
// Design: a warp an output, whose row of W it reads from one end to the other, 512 bytes a load, eight loads under way
// in each thread; they are begun before x, which every block copies to shared memory, has arrived, and before the kernel
// that makes x is over. No part of W is read
// by two warps, so nothing is cached but x. Sums in float32, within a thread in order, then by shuffles: the same bits
// every time.
#include "ops/cuda/elements.cuh"
#include "ops/cuda/in_line.cuh"
#include "ops/cuda/launch.h"
#include "ops/cuda/warp.cuh"

namespace cepe::ops::cuda {
namespace {

constexpr int warps = 8;
constexpr int ahead = 8;  // loads of 16 bytes that a thread has under way

__device__ uint4 load_once(const uint4* from) {
  uint4 value;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(from));
  return value;
}

// A bfloat16 is the upper half of a float32.
__device__ float lower(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ float upper(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

__device__ void add_products(float& sum, const uint4& w, const uint4& x) {
  sum = fmaf(lower(w.x), lower(x.x), sum);
  sum = fmaf(upper(w.x), upper(x.x), sum);
  sum = fmaf(lower(w.y), lower(x.y), sum);
  sum = fmaf(upper(w.y), upper(x.y), sum);
  sum = fmaf(lower(w.z), lower(x.z), sum);
  sum = fmaf(upper(w.z), upper(x.z), sum);
  sum = fmaf(lower(w.w), lower(x.w), sum);
  sum = fmaf(upper(w.w), upper(x.w), sum);
}

template <int rows>
__global__ void __launch_bounds__(warps* warp) row_product_kernel(const RowProductRun run) {
  extern __shared__ uint4 x[];  // [rows, packs]
  const int lane = static_cast<int>(threadIdx.x) % warp;
  const int64_t output = int64_t{blockIdx.x} * warps + threadIdx.x / warp;
  const int packs = static_cast<int>(run.inputs / 8);
  const bool there = output < run.outputs;
  const uint4* weight = static_cast<const uint4*>(run.weight) + output * packs;
  uint4 loaded[ahead];
#pragma unroll
  for (int i = 0; i < ahead; ++i) {
    const int pack = i * warp + lane;
    loaded[i] = there && pack < packs ? load_once(weight + pack) : make_uint4(0, 0, 0, 0);
  }
  let_successor_begin();
  wait_for_predecessor();  // x may be its work; the weight is nobody's
  for (int i = static_cast<int>(threadIdx.x); i < rows * packs; i += warps * warp) {
    x[i] = static_cast<const uint4*>(run.x)[i];
  }
  __syncthreads();
  if (!there) return;

  float sums[rows] = {};
  for (int first = 0; first < packs; first += ahead * warp) {
#pragma unroll
    for (int i = 0; i < ahead; ++i) {
      const int pack = first + i * warp + lane, next = pack + ahead * warp;
      const uint4 values = loaded[i];
      if (next < packs) loaded[i] = load_once(weight + next);
      if (pack >= packs) continue;
#pragma unroll
      for (int row = 0; row < rows; ++row) add_products(sums[row], values, x[row * packs + pack]);
    }
  }
#pragma unroll
  for (int row = 0; row < rows; ++row) {
    const float sum = sum_of_warp(sums[row]);
    if (lane == 0) static_cast<Bfloat16*>(run.y)[row * run.outputs + output] = __float2bfloat16_rn(sum);
  }
}

template <int rows>
cudaError_t launch_with(const RowProductRun& run, cudaStream_t stream) {
  const auto shared = static_cast<size_t>(rows * run.inputs) * sizeof(Bfloat16);
  return launch_in_line(row_product_kernel<rows>, blocks_for(run.outputs, warps), warps * warp, shared, stream, run);
}

}  // namespace

cudaError_t launch(const RowProductRun& run, cudaStream_t stream) {
  switch (run.rows) {
    case 1:
      return launch_with<1>(run, stream);
    case 2:
      return launch_with<2>(run, stream);
    case 3:
      return launch_with<3>(run, stream);
    case 4:
      return launch_with<4>(run, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace cepe::ops::cuda
