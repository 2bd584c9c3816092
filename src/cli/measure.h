// What measuring commands share: a clock that waits for the device, and what the machine can do.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/TensorOptions.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <vector>

#include "model/cepe_model.h"

namespace cepe::cli {

// Starts when the device is done with what was asked before; seconds() when it is done with what was asked since.
class Clock {
 public:
  explicit Clock(c10::Device device);
  double seconds() const;

 private:
  c10::Device device_;
  std::chrono::steady_clock::time_point start_;
};

double median(std::vector<double> values);

// The shortest of some passes of `work`.
double best_seconds(c10::Device device, const std::function<void()>& work);

// Bytes a second of the memory of a device, by tables far larger than the caches. CPU: what all threads read together.
// GPU: what copies read and write, several in a row, so that launching them does not count.
double memory_bandwidth(c10::Device device);
// Operations a second of a large product of random matrices of this type there.
double product_rate(c10::TensorOptions options);

// Weights that one decoded token reads: all but an embedding table that is not the output's too; the cross-attention's
// only where there is a context: where it is read absorbed, those of keys and values too.
int64_t weight_bytes_a_token(const model::CepeModel& model, bool has_context, bool absorbed);
// Bytes of the context that one token reads: kept K and V, else the states once a layer.
int64_t context_bytes_a_token(const model::CepeModel& model, const model::ContextStates& context);

}  // namespace cepe::cli
