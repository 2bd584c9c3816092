// Checkpoints of a training run: a folder for each, complete or not there at all, whatever crashes and whenever.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/file_layer.h"
#include "base/files.h"
#include "base/json.h"

namespace cepe::train {

// What a checkpoint holds. Tensors: dense, of any device, of a type that safetensors has (float64, float32, float16,
// bfloat16, int64, int32, int16, int8, uint8, bool), with different names. State: step, data position, random
// generators, settings; JSON knows no NaN or infinity: they become null.
struct CheckpointState {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  base::Json state;
};

// <folder>/step-00001200/ with tensors.safetensors, state.json and manifest.json (sizes and SHA-256 of the other two).
// For one process and one thread at a time: a second one takes what the first is writing for a leftover.
class CheckpointFolder {
 public:
  // `keep`: so many of the newest stay (1 or more). Makes the folder; removes, with a notice, what a crash left half
  // written. `files` outlives this object. Errors: invalid_argument, io.
  CheckpointFolder(const base::Path& folder, int64_t keep, base::FileLayer& files = base::disk());

  // For looking only, also beside a run that is writing: nothing is made, removed or put back. Only newest, load_newest
  // and steps may be called; a folder that is not there has none.
  static CheckpointFolder to_read(const base::Path& folder, base::FileLayer& files = base::disk());

  // Once this returns, no crash of the process or the machine loses it. Needs the memory of one tensor at most, and
  // none for contiguous ones on the CPU. Only then are older ones removed, and damaged ones that load_newest met.
  // Saving the newest step once more replaces it. On any error the earlier ones stand.
  // Errors: io (a full disk), unsupported and invalid_argument (a tensor that cannot be saved, named; a state that is
  // no JSON; a step before one that is there, which load_newest would go on returning).
  void save(int64_t step, const CheckpointState& content);

  // The newest step that was written completely; its checksums are left to load_newest.
  std::optional<int64_t> newest() const;

  // The newest whose every checksum holds: tensors on the CPU, contiguous, in the order they were given, with exact
  // types and bits. A damaged one is named in a warning and the one before it is taken; nothing where there is none.
  // Errors: corrupt where there are some and all are damaged.
  std::optional<std::pair<int64_t, CheckpointState>> load_newest();

  std::vector<int64_t> steps() const;  // of those written completely, ascending

 private:
  struct Reading {};
  CheckpointFolder(const base::Path& folder, base::FileLayer& files, Reading);
  void settle_leftovers();
  void settle_replaced(const std::string& name);
  void publish(int64_t step);
  void withdraw(int64_t step);
  void remove_old(int64_t saved);
  void remove_step(int64_t step);
  std::vector<int64_t> listed_steps() const;
  base::Path path_of(int64_t step) const;

  base::Path folder_;
  int64_t keep_;
  base::FileLayer& files_;
  std::set<int64_t> damaged_;  // met by load_newest
};

}  // namespace cepe::train
