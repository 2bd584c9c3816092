// Attention of a ragged batch over pages: see ops/paged_attention.h.
// Bound: the larger of (bytes of keys and values) / memory bandwidth and 4 * query rows * cached rows * width
// operations / tensor peak (989 TFLOP/s). A latent context of 131072 x 1024 in bfloat16, read once since its keys are
// its values, is 268 MB: 64 us at the 4.2 TB/s of a copy on an H200, 80 us at the 3.35 of an H100; at 64 query rows the
// operations would take 35 us. Figures: docs/performance.md.
// Design: paged_attention.cuh for the parts; their sums are merged here by their log-sum-exps. The sums of a part cost
// rows * width * 4 bytes (2 of the latent kernel) written and read again, most of it within the second-level cache.
// On Hopper latent_hopper.cu takes what it is faster at, latent_products.cu a thousand latent query rows of one
// sequence and more, paged_cluster.cu few query rows over short contexts, causal_rows.cu texts. What holds it back
// where it is far from the bound (latent, 32 query rows and more: two warps a scheduler, 28 % of the issue slots used):
// a block's registers are full of sums, so that there is one block a multiprocessor and nothing else to do while a tile
// goes through scores, softmax and sums.
#include <algorithm>
#include <array>
#include <atomic>

#include "ops/cuda/causal_rows.h"
#include "ops/cuda/latent_int8.h"
#include "ops/cuda/latent_products.h"
#include "ops/cuda/merge_into_heads.cuh"
#include "ops/cuda/merge_parts.cuh"
#include "ops/cuda/paged_attention.cuh"
#include "ops/cuda/paged_cluster.h"
#include "ops/cuda/paged_rows.cuh"

namespace cepe::ops::cuda {
namespace {

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

// What lies in the workspace: the sums of each part, then the states (maximum, denominator) of their rows.
struct Workspace {
  int64_t sums, states;  // bytes
};

template <class T>  // of the sums
Workspace workspace_of(const PagedAttentionRun& run, int rows, int blocks) {
  const int64_t units = run.groups * (run.query_rows / rows + run.sequences);  // at most
  const int64_t slots = blocks + units;
  return {slots * rows * run.width * static_cast<int64_t>(sizeof(T)), slots * rows * 8};
}

int64_t bytes_of(const Workspace& workspace) { return workspace.sums + workspace.states; }

// attend(sums, states) leaves parts in the workspace.
template <class T, class Attend>
cudaError_t attend_and_merge(const PagedAttentionRun& run, const Cut& cut, int blocks, cudaStream_t stream,
                             const Attend& attend) {
  auto* sums = static_cast<T*>(run.workspace);
  auto* states = reinterpret_cast<float2*>(static_cast<unsigned char*>(run.workspace) +
                                           workspace_of<T>(run, cut.query_rows, blocks).sums);
  const cudaError_t error = attend(sums, states);
  if (error != cudaSuccess) return error;
  if constexpr (std::is_same_v<T, Bfloat16>) {
    if (run.head_weight) return launch_merge_into_heads(run, cut, sums, states, blocks, stream);
  }
  return launch_merge(run, cut, sums, states, blocks, stream);
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
    result = bytes_of(workspace_of<float>(run, Plan::rows, blocks));
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
    const Cut cut = {Plan::rows, Plan::tile, static_cast<int>((run.page_rows + Plan::tile - 1) / Plan::tile)};
    result = attend_and_merge<float>(run, cut, blocks, stream, [&](float* sums, float2* states) {
      return launch_in_line(kernel_of<Plan>(), blocks, Plan::threads, Plan::shared_bytes, stream, run, cut, sums,
                            states);
    });
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

LatentCut cut_of(const PagedAttentionRun& run) { return run.int8_pages ? int8_cut(run) : latent_cut(run); }

template <class Use>
void choose(const PagedAttentionRun& run, Use& use) {
  if (run.int8_pages || run.int8_heads) return;
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
  if (run.rows_of_token > 0) return takes_causal_rows(run) ? attend_causal_rows(run, stream) : cudaErrorNotSupported;
  if (const int clusters = product_clusters(run); clusters > 0) return attend_by_products(run, clusters, stream);
  if (const LatentCut latent = cut_of(run); latent.clusters > 0) {
    return attend_and_merge<Bfloat16>(run, latent.cut, latent.clusters, stream, [&](Bfloat16* sums, float2* states) {
      return (run.int8_pages ? attend_int8 : attend_latent)(run, latent, sums, states, stream);
    });
  }
  if (const int blocks = cluster_blocks(run); blocks > 0) return attend_in_clusters(run, blocks, stream);
  Launch launch{run, stream};
  choose(run, launch);
  return launch.result;
}

bool takes_heads(const PagedAttentionRun& run) {
  return merges_into_heads(run) && run.rows_of_token == 0 && product_clusters(run) == 0 && cut_of(run).clusters > 0;
}

int64_t paged_attention_workspace(const PagedAttentionRun& run) {
  constexpr int64_t none_needed = 16;  // 0 would say that there is no kernel
  if (run.rows_of_token > 0) return takes_causal_rows(run) ? none_needed : 0;
  if (const int clusters = product_clusters(run); clusters > 0) return product_workspace(run, clusters);
  if (const LatentCut latent = cut_of(run); latent.clusters > 0) {
    return bytes_of(workspace_of<Bfloat16>(run, latent.cut.query_rows, latent.clusters));
  }
  if (cluster_blocks(run) > 0) return none_needed;
  Bytes bytes{run};
  choose(run, bytes);
  return bytes.result;
}

}  // namespace cepe::ops::cuda
