// y = x W^T for one to four rows x, and for those of each head with its group's rows of W: see ops/row_product.h and
// ops/head_product.h. One row of a length that one_row.cu takes goes there.
// Bound: the bytes of W over the memory's bandwidth; x and y are nothing beside it. Figures: docs/performance.md.
// Design: a warp an output, whose row of W it reads from one end to the other, 512 bytes a load, eight loads under way
// in each thread; they are begun before x, which every block copies to shared memory, has arrived, and before the
// kernel that makes x is over. No part of W is read by two warps, so nothing is cached but x. Sums in float32, within a
// thread in order, then by shuffles: the same bits every time. Of short rows a warp takes two, so that the loads under
// way are as many, and half the registers do for a weight: blocks are there while those of the kernel before still are.
#include "ops/cuda/elements.cuh"
#include "ops/cuda/in_line.cuh"
#include "ops/cuda/launch.h"
#include "ops/cuda/one_row.h"
#include "ops/cuda/row_values.cuh"

namespace cepe::ops::cuda {
namespace {

constexpr int warps = 8;
constexpr int ahead = 8;  // loads of 16 bytes that a thread has under way

// together: outputs of a warp.
template <int rows, int together>
__global__ void __launch_bounds__(warps* warp) row_product_kernel(const RowProductRun run) {
  extern __shared__ uint4 x[];  // [rows, packs]
  constexpr int each = ahead / together;
  const int lane = static_cast<int>(threadIdx.x) % warp;
  const int64_t output = (int64_t{blockIdx.x} * warps + threadIdx.x / warp) * together;
  const int packs = static_cast<int>(run.inputs / 8);
  const int left = static_cast<int>(min(int64_t{together}, run.outputs - output));  // of the warp's outputs
  const uint4* weight = static_cast<const uint4*>(run.weight) + output * packs;
  uint4 loaded[together][each];
#pragma unroll
  for (int own = 0; own < together; ++own) {
#pragma unroll
    for (int i = 0; i < each; ++i) {
      const int pack = i * warp + lane;
      loaded[own][i] = own < left && pack < packs ? load_once(weight + own * packs + pack) : make_uint4(0, 0, 0, 0);
    }
  }
  let_successor_begin();
  wait_for_predecessor();  // x may be its work; the weight is nobody's
  // A block's outputs are of one group.
  const int64_t of_group = run.outputs / run.groups;
  const auto group = static_cast<int>(int64_t{blockIdx.x} * warps * together / of_group);
#pragma unroll
  for (int row = 0; row < rows; ++row) {
    const uint4* from = static_cast<const uint4*>(run.x) + head_row(row, group, run) * packs;
    for (int i = static_cast<int>(threadIdx.x); i < packs; i += warps * warp) x[row * packs + i] = from[i];
  }
  __syncthreads();
  if (left <= 0) return;

  float sums[together][rows] = {};
  for (int first = 0; first < packs; first += each * warp) {
#pragma unroll
    for (int own = 0; own < together; ++own) {
#pragma unroll
      for (int i = 0; i < each; ++i) {
        const int pack = first + i * warp + lane, next = pack + each * warp;
        const uint4 values = loaded[own][i];
        if (own < left && next < packs) loaded[own][i] = load_once(weight + own * packs + next);
        if (pack >= packs) continue;
#pragma unroll
        for (int row = 0; row < rows; ++row) add_products(sums[own][row], values, x[row * packs + pack]);
      }
    }
  }
#pragma unroll
  for (int own = 0; own < together; ++own) {
#pragma unroll
    for (int row = 0; row < rows; ++row) {
      const float sum = sum_of_warp(sums[own][row]);
      const int64_t at = head_row(row, group, run) * of_group + output + own - group * of_group;
      if (own < left && lane == 0) static_cast<Bfloat16*>(run.y)[at] = __float2bfloat16_rn(sum);
    }
  }
}

template <int rows>
cudaError_t launch_with(const RowProductRun& run, cudaStream_t stream) {
  const auto shared = static_cast<size_t>(rows * run.inputs) * sizeof(Bfloat16);
  const auto launch = [&](auto* kernel, int together) {
    return launch_in_line(kernel, blocks_for(run.outputs, warps * together), warps * warp, shared, stream, run);
  };
  // A block's outputs are of one group.
  const bool two = run.inputs <= ahead / 2 * warp * 8 && (run.outputs / run.groups) % (2 * warps) == 0;
  return two ? launch(row_product_kernel<rows, 2>, 2) : launch(row_product_kernel<rows, 1>, 1);
}

}  // namespace

cudaError_t launch(const RowProductRun& run, cudaStream_t stream) {
  if (is_one_row(run)) return launch_one_row(run, stream);
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
