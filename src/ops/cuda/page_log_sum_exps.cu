// Log-sum-exps of query rows over each page by itself: see ops/page_log_sum_exps.h.
// Bound: the bytes of the keys over the memory's bandwidth; 0.62 to 0.80 of it on an H200 in bfloat16, 0.44 to 0.49 in
// 8 bits (docs/performance.md). What is lost: pages that do not fill the last blocks, and queries laid down for each.
// Design: a block has a page, one group and up to 32 query rows, which lie in its shared memory; each warp takes eight
// rows of the page at a time by mma.sync, their scores being of no further use than what they sum to. A lane's keys
// come straight from memory, 16 bytes at a time: of the 32 columns of two products it has eight neighbouring ones, and
// so has its part of the queries, since a product does not ask in which order columns are added up.
#include <algorithm>
#include <type_traits>

#include "ops/cuda/elements.cuh"
#include "ops/cuda/in_line.cuh"
#include "ops/cuda/launch.h"
#include "ops/cuda/tensor_core.cuh"
#include "ops/cuda/warp.cuh"

namespace cepe::ops::cuda {
namespace {

constexpr int tile = 8, step_columns = 32;

// Of those that were compared on an H200 the fastest: warps of a block (wide queries take so much shared memory that
// few blocks are there at one time), row tiles of a warp and steps of columns whose keys are asked for at one time.
template <int width, bool int8>
struct PagePlan {
  static constexpr int warps = width < 512 ? 4 : 8, together = width < 576 && !int8 ? 2 : 4;
  static constexpr int steps = width / step_columns, most_ahead = 8 / together;
  static constexpr int steps_ahead = steps % 3 == 0 ? 3 : steps < most_ahead ? steps : most_ahead;
  static_assert(steps % steps_ahead == 0);
};

constexpr int padding = step_columns;  // of a query row in shared memory, so that neighbours lie in other banks

// Eight values of a lane as bfloat16.
struct Eight {
  uint32_t pairs[4];
};

__device__ inline Eight eight_of(uint4 loaded) { return {{loaded.x, loaded.y, loaded.z, loaded.w}}; }
// Of int8, which bfloat16 holds exactly: its seven lower bits are those of 128 + them, of which 128 is taken away, or
// 256 where the sign is set. (Conversions of integers go to the unit of the exponential, an eighth as fast.)
__device__ inline Eight eight_of(uint2 loaded) {
  constexpr uint32_t two_of_128 = 0x43004300;
  Eight eight;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t bytes = __byte_perm(i < 2 ? loaded.x : loaded.y, 0, i % 2 == 0 ? 0x4140 : 0x4342);
    const uint32_t lower = (bytes & 0x007f007fu) | two_of_128, away = (bytes & 0x00800080u) | two_of_128;
    asm("sub.rn.bf16x2 %0, %1, %2;" : "=r"(eight.pairs[i]) : "r"(lower), "r"(away));
  }
  return eight;
}

// Of a query row: in base 2.
struct Sum {
  float maximum, denominator;
};

__device__ inline void add(Sum& sum, float score, float other) {
  const float maximum = fmaxf(sum.maximum, fmaxf(score, other));
  if (maximum == -INFINITY) return;
  sum.denominator = sum.denominator * exp2f(sum.maximum - maximum) + exp2f(score - maximum) + exp2f(other - maximum);
  sum.maximum = maximum;
}

__device__ inline void add(Sum& sum, const Sum& other) {
  const float maximum = fmaxf(sum.maximum, other.maximum);
  if (maximum == -INFINITY) return;
  sum.denominator = sum.denominator * exp2f(sum.maximum - maximum) + other.denominator * exp2f(other.maximum - maximum);
  sum.maximum = maximum;
}

// row_tiles: of 16 query rows.
template <int width, int row_tiles, bool int8>
__global__ void __launch_bounds__(PagePlan<width, int8>::warps* warp)
    page_log_sum_exps_kernel(const PageLogSumExpsRun run) {
  using Plan = PagePlan<width, int8>;
  constexpr int rows = row_tiles * 16, row_values = width + padding;
  constexpr int warps = Plan::warps, together = Plan::together, steps_ahead = Plan::steps_ahead;
  extern __shared__ __align__(16) Bfloat16 queries[];  // [rows, row_values]
  __shared__ Sum sums[warps][rows];
  const int lane = static_cast<int>(threadIdx.x) % warp, own = static_cast<int>(threadIdx.x) / warp;
  const int64_t page = blockIdx.x, group = blockIdx.y, first = int64_t{blockIdx.z} * rows;
  let_successor_begin();
  wait_for_predecessor();
  const int query_rows = static_cast<int>(min(static_cast<int64_t>(rows), run.each - first));
  const int page_rows = run.rows[page];
  const auto* asked =
      static_cast<const Bfloat16*>(run.queries) + ((run.of[page] * run.each + first) * run.groups + group) * width;
  for (int i = static_cast<int>(threadIdx.x); i < rows * (width / 8); i += warps * warp) {
    const int row = i / (width / 8), column = i % (width / 8) * 8;
    const bool there = row < query_rows && page_rows > 0;
    *reinterpret_cast<uint4*>(queries + row * row_values + column) =
        there ? *reinterpret_cast<const uint4*>(asked + row * run.groups * width + column) : make_uint4(0, 0, 0, 0);
  }
  __syncthreads();

  using Loaded = std::conditional_t<int8, uint2, uint4>;  // eight values
  const auto* keys = reinterpret_cast<const char*>(run.keys[page]);
  const int64_t row_bytes = int8 ? width : run.key_stride * 2, group_bytes = int8 ? 0 : group * width * 2;
  const auto* scales = reinterpret_cast<const float*>(keys + int64_t{page_rows} * width);  // int8 alone
  const float scale = run.scale * 1.4426950408889634f;
  Sum mine[row_tiles][2];
#pragma unroll
  for (auto& pair : mine) pair[0] = pair[1] = {-INFINITY, 0};
  for (int begin = own * together * tile; begin < page_rows; begin += warps * together * tile) {
    const char* from[together];
#pragma unroll
    for (int t = 0; t < together; ++t) {  // rows beyond the page: its last one stands in for them
      const int row = min(begin + t * tile + lane / 4, page_rows - 1);
      from[t] = keys + row * row_bytes + group_bytes + lane % 4 * static_cast<int>(sizeof(Loaded));
    }
    const auto load = [&](int t, int step) {
      return *reinterpret_cast<const Loaded*>(from[t] + step * 4 * static_cast<int>(sizeof(Loaded)));
    };
    float scores[together][row_tiles][4] = {};
    for (int step = 0; step < Plan::steps; step += steps_ahead) {
      Loaded loaded[together][steps_ahead];
#pragma unroll
      for (int i = 0; i < steps_ahead; ++i) {
#pragma unroll
        for (int t = 0; t < together; ++t) loaded[t][i] = load(t, step + i);
      }
#pragma unroll
      for (int i = 0; i < steps_ahead; ++i) {
        const Bfloat16* columns = queries + (step + i) * step_columns + lane % 4 * 8;
#pragma unroll
        for (int m = 0; m < row_tiles; ++m) {
          const uint4 upper = *reinterpret_cast<const uint4*>(columns + (m * 16 + lane / 4) * row_values);
          const uint4 lower = *reinterpret_cast<const uint4*>(columns + (m * 16 + lane / 4 + 8) * row_values);
#pragma unroll
          for (int t = 0; t < together; ++t) {
            const Eight eight = eight_of(loaded[t][i]);
            multiply(scores[t][m], {upper.x, lower.x, upper.y, lower.y}, eight.pairs[0], eight.pairs[1]);
            multiply(scores[t][m], {upper.z, lower.z, upper.w, lower.w}, eight.pairs[2], eight.pairs[3]);
          }
        }
      }
    }
#pragma unroll
    for (int t = 0; t < together; ++t) {
      const int row = begin + t * tile + lane % 4 * 2;
      const bool there[2] = {row < page_rows, row + 1 < page_rows};
      float factors[2] = {scale, scale};
      if constexpr (int8) {
#pragma unroll
        for (int i = 0; i < 2; ++i) factors[i] *= there[i] ? scales[row + i] : 0.0f;
      }
#pragma unroll
      for (int m = 0; m < row_tiles; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          add(mine[m][half], there[0] ? scores[t][m][half * 2] * factors[0] : -INFINITY,
              there[1] ? scores[t][m][half * 2 + 1] * factors[1] : -INFINITY);
        }
      }
    }
  }
#pragma unroll
  for (int m = 0; m < row_tiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      Sum& sum = mine[m][half];
#pragma unroll
      for (int other = 1; other < 4; other *= 2) {
        add(sum, Sum{__shfl_xor_sync(0xffffffffu, sum.maximum, other),
                     __shfl_xor_sync(0xffffffffu, sum.denominator, other)});
      }
      if (lane % 4 == 0) sums[own][m * 16 + half * 8 + lane / 4] = sum;
    }
  }
  __syncthreads();
  const int row = static_cast<int>(threadIdx.x);
  if (row >= query_rows) return;
  Sum sum = sums[0][row];
#pragma unroll
  for (int other = 1; other < warps; ++other) add(sum, sums[other][row]);
  run.log_sum_exp[(page * run.each + first + row) * run.groups + group] =
      (sum.maximum + log2f(sum.denominator)) * 0.6931471805599453f;
}

template <int width, int row_tiles, bool int8>
cudaError_t launch_with(const PageLogSumExpsRun& run, cudaStream_t stream) {
  constexpr int rows = row_tiles * 16, shared_bytes = rows * (width + padding) * 2;
  auto* kernel = page_log_sum_exps_kernel<width, row_tiles, int8>;
  if constexpr (shared_bytes > 48 << 10) {
    const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    if (error != cudaSuccess) return error;
  }
  const dim3 grid(static_cast<unsigned>(run.pages), static_cast<unsigned>(run.groups), blocks_for(run.each, rows));
  return launch_in_line(kernel, grid, PagePlan<width, int8>::warps * warp, shared_bytes, stream, run);
}

template <int width, bool int8 = false>
cudaError_t launch_width(const PageLogSumExpsRun& run, cudaStream_t stream) {
  return run.each <= 16 ? launch_with<width, 1, int8>(run, stream) : launch_with<width, 2, int8>(run, stream);
}

}  // namespace

bool takes_page_log_sum_exps(int64_t width, bool int8_pages) {
  constexpr int widths[] = {64, 96, 128, 256, 512, 576, 1024};
  if (std::find(std::begin(widths), std::end(widths), width) == std::end(widths)) return false;
  return !int8_pages || width >= 512;
}

cudaError_t launch(const PageLogSumExpsRun& run, cudaStream_t stream) {
  switch (run.width) {
    case 64:
      return launch_width<64>(run, stream);
    case 96:
      return launch_width<96>(run, stream);
    case 128:
      return launch_width<128>(run, stream);
    case 256:
      return launch_width<256>(run, stream);
    case 512:
      return run.int8_pages ? launch_width<512, true>(run, stream) : launch_width<512>(run, stream);
    case 576:
      return run.int8_pages ? launch_width<576, true>(run, stream) : launch_width<576>(run, stream);
    case 1024:
      return run.int8_pages ? launch_width<1024, true>(run, stream) : launch_width<1024>(run, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace cepe::ops::cuda
