// The files of one checkpoint: tensors.safetensors, state.json, and manifest.json with what the other two must be.
#pragma once

#include <cstdint>

#include "base/file_layer.h"
#include "base/files.h"
#include "train/checkpoint.h"

namespace cepe::train {

// Makes `folder` with the three files, each and the folder synced. Its own name is not: it stands in its parent.
// Errors: io, unsupported, invalid_argument, as CheckpointFolder::save.
void write_step(base::FileLayer& files, const base::Path& folder, int64_t step, const CheckpointState& content);

// Checks every byte before it returns any. Errors: corrupt, not_found, io, naming the file.
CheckpointState read_step(base::FileLayer& files, const base::Path& folder, int64_t step);

// Whether there is an intact manifest of this step.
bool is_complete(base::FileLayer& files, const base::Path& folder, int64_t step);

}  // namespace cepe::train
