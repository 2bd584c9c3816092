// cepe bench --shape: what models of a published size cost, with random weights: nothing has to be there to measure it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "cli/common_options.h"

namespace cepe::cli {

struct BenchShapeOptions {
  std::string shape;     // a name of shape_names()
  std::string contexts;  // lengths; the longest is that of the first tokens and of batches
  std::vector<std::string> parts = {"encode", "forward", "first", "steps", "batches"};
  int64_t decoder_tokens = 4096, prompt_tokens = 2048;
  int64_t tokens = 32;       // decoded
  int64_t sequences = 1;     // together, each with a context of its own and over one; 1: no such rows
  int64_t row_tokens = 512;  // of each of these in the decoder's cache
  int64_t runs = 5;
  uint64_t seed = 0;
  bool int8_states = false;    // contexts as packed rows (ops/int8_rows.h) where they are decoded over
  bool int8_cache = false;     // of self-attention, as --cache-type int8 keeps it
  bool full_attention = true;  // the same decoder reading everything itself, beside it
};

std::string shape_names();

// {"shape", "device", "rows": [{"what", "context_tokens", "sequences", "seconds", "bound_seconds", "ratio",
// "peak_memory_bytes"}]}: seconds are medians; the bound is operations / peak rate or bytes / bandwidth, whichever is
// longer, by the rates measured beforehand ("tflops", "memory_bandwidth_bytes_per_second"). Errors: invalid_argument.
base::Json measure_shape(const BenchShapeOptions& options, const CommonOptions& common);
std::string shape_text(const base::Json& result);

}  // namespace cepe::cli
