// Attention of a ragged batch over pages: see ops/paged_attention.h.
// Bound: the larger of (bytes of keys and values) / memory bandwidth and 4 * query rows * cached rows * width
// operations / tensor peak (989 TFLOP/s). A latent context of 131072 x 1024 in bfloat16, read once since its keys are
// its values, is 268 MB: 64 us at the 4.2 TB/s of a copy on an H200, 80 us at the 3.35 of an H100; at 64 query rows the
// operations would take 35 us. Figures: docs/performance.md.
// Design: paged_attention.cuh for the parts; their sums are merged here by their log-sum-exps. The sums of a part cost
// rows * width * 4 bytes written and read again, most of it within the second-level cache.
// What holds it back where it is far from the bound (latent, 32 query rows and more: two warps a scheduler, 28 % of the
// issue slots used): a block's registers are full of sums, so that there is one block a multiprocessor and nothing else
// to do while a tile goes through scores, softmax and sums.
#include <algorithm>
#include <array>
#include <atomic>

#include "ops/cuda/paged_attention.cuh"
#include "ops/cuda/paged_rows.cuh"

namespace cepe::ops::cuda {
namespace {

constexpr int merge_warps = 8;
constexpr int merge_columns = 4 * warp;

struct Slots {
  int64_t first = 0;
  int count = 0, row = 0;
};

// The slots that hold parts of one query row and group; none: a row of no sequence, or one without a page.
__device__ Slots slots_of(const PagedAttentionRun& run, const Cut& cut, int row, int group, int blocks) {
  int low = 0, high = static_cast<int>(run.sequences);  // the last sequence that begins at or before the row
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (run.first_query[middle] <= row ? low : high) = middle;
  }
  if (row >= run.first_query[run.sequences]) return {};
  const SequenceWork work = work_of(run, cut, low);
  if (work.tiles == 0) return {};
  const Amount before = amount_before(run, cut, low);
  const int64_t total = amount_before(run, cut, static_cast<int>(run.sequences)).tiles;
  const int64_t busy = busy_blocks(total, blocks);
  const int within = row - work.first_query;
  const int unit = group * work.blocks + within / cut.query_rows;
  const int64_t begin = before.tiles + int64_t{unit} * work.tiles;
  const int first = block_of(total, begin, busy), last = block_of(total, begin + work.tiles - 1, busy);
  return {int64_t{first} + before.units + unit, last - first + 1, within % cut.query_rows};
}

__device__ float largest_of_warp(float value) {
  for (int other = warp / 2; other > 0; other /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, other));
  return value;
}

// One query row and group, and `merge_columns` of its width; each warp takes every eighth slot.
__global__ void __launch_bounds__(merge_warps* warp)
    merge_parts(const PagedAttentionRun run, const Cut cut, const float* all_sums, const float2* all_states,
                int blocks) {
  __shared__ float4 partial[merge_warps][warp];
  const int lane = static_cast<int>(threadIdx.x) % warp, own = static_cast<int>(threadIdx.x) / warp;
  const int64_t at = blockIdx.x;
  const int width = static_cast<int>(run.width), column = static_cast<int>(blockIdx.y) * merge_columns + lane * 4;
  const Slots slots = slots_of(run, cut, static_cast<int>(at / run.groups), static_cast<int>(at % run.groups), blocks);
  const auto place = [&](int index) { return (slots.first + index) * cut.query_rows + slots.row; };

  float maximum = -INFINITY;
  for (int i = lane; i < slots.count; i += warp) maximum = fmaxf(maximum, all_states[place(i)].x);
  maximum = largest_of_warp(maximum);
  const float base = maximum == -INFINITY ? 0.0f : maximum;
  float denominator = 0;
  for (int i = lane; i < slots.count; i += warp) {
    const float2 state = all_states[place(i)];
    denominator += state.y * exp2f(state.x - base);
  }
  denominator = sum_of_warp(denominator);

  float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll 4
  for (int i = own; i < slots.count; i += merge_warps) {
    if (column >= width) break;
    const float weight = exp2f(all_states[place(i)].x - base);
    const float4 part = *reinterpret_cast<const float4*>(all_sums + place(i) * width + column);
    sum =
        make_float4(sum.x + weight * part.x, sum.y + weight * part.y, sum.z + weight * part.z, sum.w + weight * part.w);
  }
  partial[own][lane] = sum;
  __syncthreads();
  if (own != 0) return;
#pragma unroll
  for (int other = 1; other < merge_warps; ++other) {
    const float4 more = partial[other][lane];
    sum = make_float4(sum.x + more.x, sum.y + more.y, sum.z + more.z, sum.w + more.w);
  }
  if (blockIdx.y == 0 && lane == 0) {
    run.log_sum_exp[at] = (maximum + log2f(denominator)) * 0.6931471805599453f;  // no row: log2(0) = -infinity
  }
  if (column >= width) return;
  const float share = denominator > 0 ? 1 / denominator : 0.0f;
  const Pack<float, 4> result = {sum.x * share, sum.y * share, sum.z * share, sum.w * share};
  if (!run.bfloat16_output) return store<4>(static_cast<float*>(run.output) + at * width + column, result);
  Pack<Bfloat16, 4> narrow;
#pragma unroll
  for (int i = 0; i < 4; ++i) narrow.at[i] = narrowed<Bfloat16>(result.at[i]);
  store<4>(static_cast<Bfloat16*>(run.output) + at * width + column, narrow);
}

template <class Plan>
constexpr auto kernel_of() {
  if constexpr (requires { Plan::by_rows; }) {
    return attend_by_rows<Plan>;
  } else {
    return attend_pages<Plan>;
  }
}

// Thread blocks of a launch: as many as the device holds at one time.
template <class Plan>
cudaError_t resident_blocks(int device, int& blocks) {
  static std::array<std::atomic<int>, 64> known = {};
  const bool remembered = device >= 0 && device < static_cast<int>(known.size());
  if (remembered && (blocks = known[device].load(std::memory_order_relaxed)) > 0) return cudaSuccess;
  cudaError_t error = cudaFuncSetAttribute(kernel_of<Plan>(), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           static_cast<int>(Plan::shared_bytes));
  int each = 0, processors = 0;
  if (error == cudaSuccess) {
    error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel_of<Plan>(), Plan::threads, Plan::shared_bytes);
  }
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess && each == 0) error = cudaErrorLaunchOutOfResources;
  blocks = each * processors;
  if (error == cudaSuccess && remembered) known[device].store(blocks, std::memory_order_relaxed);
  return error;
}

struct Workspace {
  int64_t slots, sums, states;  // count; bytes of each part
};

template <class Plan>
Workspace workspace_of(const PagedAttentionRun& run, int blocks) {
  const int64_t units = run.groups * (run.query_rows / Plan::rows + run.sequences);  // at most
  const int64_t slots = blocks + units;
  return {slots, slots * Plan::rows * Plan::width * 4, slots * Plan::rows * 8};
}

struct Bytes {
  const PagedAttentionRun& run;
  int64_t result = 0;
  template <class Plan>
  void with() {
    int blocks = 0;
    if (resident_blocks<Plan>(run.device, blocks) != cudaSuccess) {
      cudaGetLastError();
      return;
    }
    const Workspace workspace = workspace_of<Plan>(run, blocks);
    result = workspace.sums + workspace.states;
  }
};

struct Launch {
  const PagedAttentionRun& run;
  cudaStream_t stream;
  cudaError_t result = cudaErrorNotSupported;
  template <class Plan>
  void with() {
    int blocks = 0;
    result = resident_blocks<Plan>(run.device, blocks);
    if (result != cudaSuccess) return;
    const Workspace workspace = workspace_of<Plan>(run, blocks);
    auto* sums = static_cast<float*>(run.workspace);
    auto* states = reinterpret_cast<float2*>(static_cast<unsigned char*>(run.workspace) + workspace.sums);
    const Cut cut = {Plan::rows, Plan::tile, static_cast<int>((run.page_rows + Plan::tile - 1) / Plan::tile)};
    kernel_of<Plan>()<<<blocks, Plan::threads, Plan::shared_bytes, stream>>>(run, cut, sums, states);
    result = cudaGetLastError();
    if (result != cudaSuccess) return;
    const dim3 grid(static_cast<unsigned>(run.query_rows * run.groups), blocks_for(run.width, merge_columns));
    merge_parts<<<grid, merge_warps * warp, 0, stream>>>(run, cut, sums, states, blocks);
    result = cudaGetLastError();
  }
};

// A unit's query rows: no more than needed, as few as keep the sums in registers.
template <class UpTo16, class UpTo32, class More, class Use>
void choose_rows(const PagedAttentionRun& run, Use& use) {
  if (run.most_query_rows <= UpTo16::rows) {
    use.template with<UpTo16>();
  } else if (run.most_query_rows <= UpTo32::rows) {
    use.template with<UpTo32>();
  } else {
    use.template with<More>();
  }
}

// Width, columns of a warp, query rows, cached rows of a tile, stages, overlapped, together: of those that were
// compared on an H200 the fastest over 131072 cached rows.
template <int width, int columns, int rows, int tile, int stages, bool overlapped = false, int together = 1>
using Latent = PagedPlan<width, columns, rows, tile, stages, true, overlapped, together>;
template <int width, int columns, int rows, int stages, int together = 1>
using Pair = PagedPlan<width, columns, rows, 32, stages, false, false, together>;

template <class Use>
void choose(const PagedAttentionRun& run, Use& use) {
  if (run.same) {
    using Wide = Latent<1024, 128, 32, 16, 5, true>;
    using Middle = Latent<576, 64, 32, 32, 4, true, 2>;
    switch (run.width) {
      case 512:
        return choose_rows<Latent<512, 64, 16, 32, 5>, Latent<512, 64, 32, 32, 4, true, 2>,
                           Latent<512, 64, 64, 16, 6, true>>(run, use);
      case 576:
        return choose_rows<Latent<576, 64, 16, 32, 5, false, 2>, Middle, Middle>(run, use);
      case 1024:
        return choose_rows<Latent<1024, 128, 16, 32, 3, false, 2>, Wide, Wide>(run, use);
      default:
        break;
    }
  }
  switch (run.width) {
    case 64:
      return choose_rows<Pair<64, 32, 16, 5, 2>, Pair<64, 32, 32, 5>, RowsPlan<64, 3, 2>>(run, use);
    case 96:
      return choose_rows<Pair<96, 48, 16, 4, 2>, Pair<96, 48, 32, 4>, RowsPlan<96, 3, 2>>(run, use);
    case 128:
      return choose_rows<Pair<128, 64, 16, 3>, Pair<128, 32, 32, 3>, RowsPlan<128, 3, 2>>(run, use);
    case 256:
      return choose_rows<Pair<256, 64, 16, 3, 2>, Pair<256, 64, 32, 3>, Pair<256, 32, 64, 2>>(run, use);
    default:
      return;
  }
}

}  // namespace

cudaError_t launch(const PagedAttentionRun& run, cudaStream_t stream) {
  Launch launch{run, stream};
  choose(run, launch);
  return launch.result;
}

int64_t paged_attention_workspace(const PagedAttentionRun& run) {
  Bytes bytes{run};
  choose(run, bytes);
  return bytes.result;
}

}  // namespace cepe::ops::cuda
