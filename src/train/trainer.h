// The loop: samples -> batch -> loss -> gradients -> step, with checkpoints, logs and validation on the way.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "base/files.h"
#include "train/recipe.h"

namespace cepe::train {

struct TrainOptions {
  base::Path cache;  // where the default model is
  // Of the replicas of the model, which share the micro-batches of each step. Which samples are seen, and in which
  // micro-batches, does not depend on how many there are.
  std::vector<c10::Device> devices = {c10::kCPU};
  double stop_after_seconds = 0;  // then saves and stops; 0: goes on to the end
  bool export_only = false;       // writes the newest checkpoint's result/ and trains nothing
  // A corpus of another tokenizer, and other data or another decoder than before, are taken all the same.
  bool allow_mismatch = false;
  // Bytes in use at most on the first device so far; empty on a CPU.
  std::function<int64_t()> device_memory;
};

struct TrainResult {
  int64_t steps = 0;      // done in all
  bool finished = false;  // false: stopped by stop_after_seconds
  double loss = 0;        // of the last step
};

// Runs a recipe, or goes on where its output folder says that it stopped. In the folder: recipe.yaml (as run),
// checkpoints/, metrics.jsonl, TensorBoard's events, and at the end result/ (export_trained).
// Errors: those of the recipe's parts; invalid_argument where the folder is another recipe's, naming what differs, or
// where the micro-batches of a phase cannot be shared equally; mismatch where the corpus was made with another
// tokenizer than the decoder's, or corpus or decoder are not those of the run before; not_found for export_only without
// a checkpoint; internal where the loss stays not finite. Ctrl-C: saves a checkpoint and throws base::Interrupted.
TrainResult train(const Recipe& recipe, const TrainOptions& options);

}  // namespace cepe::train
