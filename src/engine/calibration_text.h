// The text on which fp8 weights are calibrated (model/calibrate.h), as token ids.
#pragma once

#include <ATen/core/Tensor.h>

#include "base/files.h"
#include "text/tokenizer.h"

namespace cepe::engine {

// Up to 128 windows of 512 tokens, spread evenly over the text of the file: [windows, 512] int64. Few tokens are learnt
// by heart rather than from, so a text must have 4,096. Of a long file the first 4 MB are read. Errors: not_found;
// invalid_argument for a text that is too short or is no UTF-8, saying how long it must be.
at::Tensor calibration_windows(const base::Path& file, const text::Tokenizer& tokenizer);

}  // namespace cepe::engine
