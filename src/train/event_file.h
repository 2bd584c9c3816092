// Curves for TensorBoard: an event file of scalars. https://www.tensorflow.org/tensorboard
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/files.h"
#include "train/appended_file.h"

namespace cepe::train {

class EventFile {
 public:
  // A new file in `folder` (made where it is missing): events.out.tfevents.<seconds since 1970>.cepe. A run that goes
  // on after a checkpoint says of which step: TensorBoard then hides what older files of the folder have of later
  // ones. Errors: io, not_found.
  explicit EventFile(const base::Path& folder, std::optional<int64_t> resume_after_step = std::nullopt);

  // Kept as float32. `tag` names the curve ("loss/train"). Errors: invalid_argument where it is not UTF-8; io.
  void scalar(std::string_view tag, int64_t step, double value);
  void flush();  // errors: io

 private:
  AppendedFile file_;
};

}  // namespace cepe::train
