// y = W_g^T x for one to four rows x of each group: see ops/head_product.h.
// Bound: the bytes of W over the memory's bandwidth, 2 us for the 8 MB of a 7B layer; in practice its beginning and
// end. Design: a block has 256 columns of one group, a lane eight of them, and its warps share the group's rows of W,
// which they read whole lines at a time, sixteen loads under way in each thread, begun before the kernel that makes x
// is over. The warps' sums are added up in shared memory, in order.
#include "ops/cuda/in_line.cuh"
#include "ops/cuda/launch.h"
#include "ops/cuda/row_values.cuh"

namespace cepe::ops::cuda {
namespace {

constexpr int warps = 8, columns = 256, ahead = 16;

template <int rows>
__global__ void __launch_bounds__(warps* warp) transposed_product_kernel(const TransposedProductRun run) {
  extern __shared__ float shared[];  // x [rows, of_group], then sums [warps, rows, columns]
  const int lane = static_cast<int>(threadIdx.x) % warp, own = static_cast<int>(threadIdx.x) / warp;
  const auto group = static_cast<int>(blockIdx.y), of_group = static_cast<int>(run.inputs / run.groups);
  const int column = static_cast<int>(blockIdx.x) * columns + lane * 8;
  const bool there = column < run.outputs;
  const uint4* weight = static_cast<const uint4*>(run.weight) + (int64_t{group} * of_group * run.outputs + column) / 8;
  const int64_t row_packs = run.outputs / 8;
  // Rows own, own + warps, ... of the group.
  const auto load = [&](int index) {
    const int row = own + index * warps;
    return there && row < of_group ? load_once(weight + row * row_packs) : make_uint4(0, 0, 0, 0);
  };
  uint4 loaded[ahead];
#pragma unroll
  for (int i = 0; i < ahead; ++i) loaded[i] = load(i);
  let_successor_begin();
  wait_for_predecessor();  // x may be its work; the weight is nobody's
  for (int i = static_cast<int>(threadIdx.x); i < rows * of_group; i += warps * warp) {
    const int64_t from = head_row(i / of_group, group, run) * of_group + i % of_group;
    shared[i] = widened(static_cast<const Bfloat16*>(run.x)[from]);
  }
  __syncthreads();

  float sums[rows][8] = {};
  const auto add = [&](float factor, const uint4& w, float(&to)[8]) {
    const uint32_t pairs[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      to[2 * i] = fmaf(factor, lower(pairs[i]), to[2 * i]);
      to[2 * i + 1] = fmaf(factor, upper(pairs[i]), to[2 * i + 1]);
    }
  };
  for (int first = 0; own + first * warps < of_group; first += ahead) {
#pragma unroll
    for (int i = 0; i < ahead; ++i) {
      const int input = own + (first + i) * warps;
      const uint4 values = loaded[i];
      loaded[i] = load(first + i + ahead);
      if (input >= of_group) continue;
#pragma unroll
      for (int row = 0; row < rows; ++row) add(shared[row * of_group + input], values, sums[row]);
    }
  }
  float* partial = shared + rows * of_group;
#pragma unroll
  for (int row = 0; row < rows; ++row) {
#pragma unroll
    for (int i = 0; i < 8; ++i) partial[(own * rows + row) * columns + lane * 8 + i] = sums[row][i];
  }
  __syncthreads();
  const int at = static_cast<int>(blockIdx.x) * columns + static_cast<int>(threadIdx.x);
  if (at >= run.outputs) return;
#pragma unroll
  for (int row = 0; row < rows; ++row) {
    float sum = 0;
    for (int other = 0; other < warps; ++other) sum += partial[(other * rows + row) * columns + threadIdx.x];
    static_cast<Bfloat16*>(run.y)[head_row(row, group, run) * run.outputs + at] = __float2bfloat16_rn(sum);
  }
}

template <int rows>
cudaError_t launch_with(const TransposedProductRun& run, cudaStream_t stream) {
  const int64_t floats = rows * (run.inputs / run.groups + warps * columns);
  const dim3 grid(blocks_for(run.outputs, columns), static_cast<unsigned>(run.groups));
  return launch_in_line(transposed_product_kernel<rows>, grid, warps * warp, static_cast<size_t>(floats) * 4, stream,
                        run);
}

}  // namespace

cudaError_t launch(const TransposedProductRun& run, cudaStream_t stream) {
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
