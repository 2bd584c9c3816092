// y = x W^T for one to four rows x: see ops/row_product.h.
// Bound: the bytes of W over the memory's bandwidth; x and y are nothing beside it. Figures: docs/performance.md.
// Design: a warp an output, whose row of W it reads from one end to the other, 512 bytes a load, eight loads under way
// in each thread; they are begun before x, which every block copies to shared memory, has arrived, and before the
// kernel that makes x is over. No part of W is read by two warps, so nothing is cached but x. Sums in float32, within a
// thread in order, then by shuffles: the same bits every time.
#include "ops/cuda/elements.cuh"
#include "ops/cuda/in_line.cuh"
#include "ops/cuda/launch.h"
#include "ops/cuda/row_values.cuh"

namespace cepe::ops::cuda {
namespace {

constexpr int warps = 8;
constexpr int ahead = 8;  // loads of 16 bytes that a thread has under way

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
  // A block's outputs are of one group.
  const int64_t of_group = run.outputs / run.groups;
  const auto group = static_cast<int>(int64_t{blockIdx.x} * warps / of_group);
#pragma unroll
  for (int row = 0; row < rows; ++row) {
    const uint4* from = static_cast<const uint4*>(run.x) + head_row(row, group, run) * packs;
    for (int i = static_cast<int>(threadIdx.x); i < packs; i += warps * warp) x[row * packs + i] = from[i];
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
    const int64_t at = head_row(row, group, run) * of_group + output - group * of_group;
    if (lane == 0) static_cast<Bfloat16*>(run.y)[at] = __float2bfloat16_rn(sum);
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
