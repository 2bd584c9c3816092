// Products by the algorithm of cuBLASLt that was measured to be the fastest: see ops/tuned_product.h.
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <tuple>
#include <type_traits>
#include <vector>

#include "ops/cuda/cublas_lt.h"
#include "ops/cuda/table.h"

namespace cepe::ops::cuda {
namespace {

template <class Handle>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, cublasStatus_t (*)(Handle)>;

template <class Handle, class... Arguments>
Owned<Handle> make(cublasStatus_t (*destroy)(Handle), cublasStatus_t (*create)(Handle*, Arguments...),
                   std::type_identity_t<Arguments>... arguments) {
  Handle handle = nullptr;
  if (create(&handle, arguments...) != 0) handle = nullptr;
  return {handle, destroy};
}

// The library counts in columns: y^T [outputs, rows] = W^T^T x^T, W^T [inputs, outputs], x^T [inputs, rows].
class Product {
 public:
  Product(const TunedProductRun& run, cublasLtHandle_t library, cudaStream_t stream)
      : run_(run), library_(library), stream_(stream) {
    constexpr int transposed = CUBLAS_OP_T;
    ready_ = product_ && weight_ && x_ && y_ &&
             cublasLtMatmulDescSetAttribute(product_.get(), CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                            sizeof(transposed)) == 0;
  }

  // What the library proposes, its first choice first; what failed is left out.
  std::vector<cublasLtMatmulHeuristicResult_t> proposals() const {
    constexpr int most = 16;
    constexpr size_t workspace = size_t{16} << 20;
    const auto preference = make(cublasLtMatmulPreferenceDestroy, cublasLtMatmulPreferenceCreate);
    std::vector<cublasLtMatmulHeuristicResult_t> found(most);
    int count = 0;
    if (!ready_ || !preference ||
        cublasLtMatmulPreferenceSetAttribute(preference.get(), CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                             sizeof(workspace)) != 0 ||
        cublasLtMatmulAlgoGetHeuristic(library_, product_.get(), weight_.get(), x_.get(), y_.get(), y_.get(),
                                       preference.get(), most, found.data(), &count) != 0)
      return {};
    found.resize(count);
    std::erase_if(found, [](const auto& result) { return result.state != 0; });
    return found;
  }

  bool multiply(const cublasLtMatmulHeuristicResult_t& by) const {
    constexpr float one = 1, zero = 0;
    c10::DataPtr workspace;
    if (by.workspaceSize > 0) workspace = c10::cuda::CUDACachingAllocator::get()->allocate(by.workspaceSize);
    return ready_ &&
           cublasLtMatmul(library_, product_.get(), &one, run_.weight, weight_.get(), run_.x, x_.get(), &zero, run_.y,
                          y_.get(), run_.y, y_.get(), &by.algo, workspace.get(), by.workspaceSize, stream_) == 0;
  }

 private:
  const TunedProductRun& run_;
  cublasLtHandle_t library_;
  cudaStream_t stream_;
  Owned<cublasLtMatmulDesc_t> product_ =
      make(cublasLtMatmulDescDestroy, cublasLtMatmulDescCreate, CUBLAS_COMPUTE_32F, CUDA_R_32F);
  Owned<cublasLtMatrixLayout_t> weight_ = layout(run_.inputs, run_.outputs), x_ = layout(run_.inputs, run_.rows),
                                y_ = layout(run_.outputs, run_.rows);
  bool ready_ = false;

  static Owned<cublasLtMatrixLayout_t> layout(int64_t rows, int64_t columns) {
    return make(cublasLtMatrixLayoutDestroy, cublasLtMatrixLayoutCreate, CUDA_R_16BF, static_cast<uint64_t>(rows),
                static_cast<uint64_t>(columns), rows);
  }
};

class Event {
 public:
  Event() { cudaEventCreate(&event_); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(cudaStream_t stream) { cudaEventRecord(event_, stream); }
  float milliseconds_since(const Event& before) const {
    float found = 0;
    cudaEventSynchronize(event_);
    cudaEventElapsedTime(&found, before.event_, event_);
    return found;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

// The fastest by the median of a few rounds, all by turns: the clock of a GPU moves while it is measured.
std::optional<cublasLtMatmulHeuristicResult_t> fastest(const Product& product, cudaStream_t stream) {
  constexpr size_t least_rounds = 2, most_rounds = 5;
  constexpr float enough_milliseconds = 15, worth_it = 0.97f;  // of the first choice's time
  std::vector<cublasLtMatmulHeuristicResult_t> found = product.proposals();
  std::erase_if(found, [&](const auto& by) { return !product.multiply(by); });  // the first time loads its code
  if (found.empty()) return std::nullopt;
  std::vector<std::vector<float>> times(found.size());
  std::vector<Event> marks(found.size() + 1);
  float spent = 0;
  for (size_t round = 0; round < least_rounds || (round < most_rounds && spent < enough_milliseconds); ++round) {
    marks[0].record(stream);
    for (size_t i = 0; i < found.size(); ++i) {
      product.multiply(found[i]);
      marks[i + 1].record(stream);
    }
    spent += marks.back().milliseconds_since(marks.front());
    for (size_t i = 0; i < found.size(); ++i) times[i].push_back(marks[i + 1].milliseconds_since(marks[i]));
  }
  const auto median = [](std::vector<float>& of) {
    std::ranges::sort(of);
    return (of[(of.size() - 1) / 2] + of[of.size() / 2]) / 2;
  };
  size_t best = 0;
  float least = median(times[0]) * worth_it;
  for (size_t i = 1; i < found.size(); ++i) {
    const float time = median(times[i]);
    if (time < least) {
      least = time;
      best = i;
    }
  }
  return found[best];
}

// What was found so far, for good. nullopt: nothing that works.
class Choices {
 public:
  using Choice = std::optional<cublasLtMatmulHeuristicResult_t>;

  bool multiply(const TunedProductRun& run, cudaStream_t stream) {
    const cublasLtHandle_t library = library_of(run.device);
    if (!library) return false;
    const Product product(run, library, stream);
    const Choice choice = choice_of(run, product, stream);
    return choice && product.multiply(*choice);
  }

 private:
  std::mutex mutex_;
  std::map<int, cublasLtHandle_t> libraries_;
  std::map<std::tuple<int, int64_t, int64_t, int64_t>, Choice> found_;

  cublasLtHandle_t library_of(int device) {
    const std::lock_guard lock(mutex_);
    const auto [place, created] = libraries_.try_emplace(device, nullptr);
    if (created && cublasLtCreate(&place->second) != 0) place->second = nullptr;
    return place->second;
  }

  // One at a time, so that nothing else of this process's products runs beside what is measured. A recording cannot
  // be measured: what is not known by then is LibTorch's to do.
  Choice choice_of(const TunedProductRun& run, const Product& product, cudaStream_t stream) {
    const std::lock_guard lock(mutex_);
    const std::tuple key(run.device, run.rows_alike, run.inputs, run.outputs);
    if (const auto known = found_.find(key); known != found_.end()) return known->second;
    if (c10::cuda::currentStreamCaptureStatusMayInitCtx() != c10::cuda::CaptureStatus::None) return std::nullopt;
    return found_.emplace(key, fastest(product, stream)).first->second;
  }
};

}  // namespace

bool tuned_product(const TunedProductRun& run) {
  static Choices& choices = *new Choices;  // for good: its handles may not outlive the driver, at the program's end
  const auto index = static_cast<c10::DeviceIndex>(run.device);
  const c10::cuda::CUDAGuard guard(index);
  return choices.multiply(run, c10::cuda::getCurrentCUDAStream(index).stream());
}

}  // namespace cepe::ops::cuda
