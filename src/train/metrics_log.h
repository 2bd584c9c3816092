// metrics.jsonl: one JSON object a line, its "step" first.
#pragma once

#include <cstdint>

#include "base/files.h"
#include "base/json.h"
#include "train/appended_file.h"

namespace cepe::train {

class MetricsLog {
 public:
  // Goes on at the end of `file`, or begins it (its folder is there). What a stopped run wrote of steps after
  // `resume_after_step` is cut off, and so is a torn last line; -1 cuts off everything. Errors: io, not_found; corrupt
  // (with the line) where lines are broken that other good ones follow: then nothing is cut off.
  MetricsLog(const base::Path& file, int64_t resume_after_step);

  // {"step": step, ...values}, with the operating system once it returns. Steps do not go down. Numbers that are none
  // (NaN, infinity) become null. Errors: io (the line is then not there); invalid_argument where `values` is no object
  // or has a "step" of its own.
  void write(int64_t step, base::OrderedJson values);

 private:
  AppendedFile file_;
};

}  // namespace cepe::train
