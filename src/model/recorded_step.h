// Decoding with each step recorded as a graph (ops/device_graph.h): launching its thousand kernels one by one takes a
// GPU longer than running them.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "model/cepe_model.h"
#include "model/step_tables.h"
#include "ops/device_graph.h"

namespace cepe::model {

// One sequence over a context, a token at a time. On a GPU in bfloat16 the step is recorded at its first use.
class RecordedStep {
 public:
  // Whether model and context can be stepped so: a GPU with kernels for these widths, bfloat16, no sliding windows.
  static bool takes(const CepeModel& model, const KvCache& cache, const ContextStates* context);

  // The cache's rows before the first step are those of a prefill; it must not grow. Context: absorbed, unless its K
  // and V are kept. All three must outlive the step.
  RecordedStep(const CepeModel& model, KvCache& cache, const ContextStates* context);
  ~RecordedStep();

  // The token at `position` (rows before it are in the cache) -> logits of the next [1, V] float32, overwritten by the
  // next call. token [1] int64 on the device: nothing waits for it.
  const at::Tensor& logits(const at::Tensor& token, int64_t position);

 private:
  void run();

  const CepeModel& model_;
  KvCache& cache_;
  const ContextStates* context_;
  at::Tensor token_, position_, page_starts_, logits_;
  std::shared_ptr<StepTables> tables_;
  std::unique_ptr<ops::DeviceGraph> graph_;
};

}  // namespace cepe::model
