// What a run tells: a line for people, JSON lines, and TensorBoard's events.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "train/event_file.h"
#include "train/metrics_log.h"
#include "train/recipe.h"
#include "train/validation.h"

namespace cepe::train {

struct StepReport {
  double loss = 0, cross_entropy = 0, gradient_norm = 0, rate_share = 0;
  std::optional<double> divergence;
  double seconds = 0;
  double flops = 0;    // training_flops
  int64_t tokens = 0;  // read by the decoder (stage mlm: the encoder)
};

class RunLog {
 public:
  // Goes on after `step`: later lines of metrics.jsonl, of a run that got further, are cut off.
  struct Hardware {
    size_t devices = 1;                      // that work together: peak_tflops is one's
    std::function<int64_t()> device_memory;  // bytes in use at most; empty: the process's
  };
  RunLog(const Recipe& recipe, int64_t step, int64_t trained_weights, Hardware hardware);

  // Every recipe.log_steps steps (and the first and last) a line with means over the steps since the last one.
  void stepped(int64_t step, const StepReport& report);
  void validated(int64_t step, const std::vector<ValidationResult>& results);

 private:
  void write(int64_t step);

  const Recipe& recipe_;
  MetricsLog metrics_;
  EventFile events_;
  Hardware hardware_;
  std::vector<StepReport> since_;  // the last line
  int64_t first_step_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace cepe::train
