// Where the rows of a sequence lie in a KvCache: one after the other, or in blocks that its block table names.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "model/layout.h"

namespace cepe::model {

struct CacheRun {
  int64_t slot = 0, count = 0;  // adjacent slots
};

// Rows [begin, end) of the sequence, in order. Blocks that lie side by side are one run, unless layout.by_block.
std::vector<CacheRun> cache_runs(const BatchLayout& layout, const SequenceRows& sequence, int64_t begin, int64_t end);

// Writes the new rows of all sequences: keys and values [N, G, D] into cache_keys and cache_values (KvCache), in their
// type.
void write_rows(const BatchLayout& layout, const at::Tensor& keys, const at::Tensor& values,
                const at::Tensor& cache_keys, const at::Tensor& cache_values);

// Rows of the runs together [rows, G, D]: a view where there is one run, else a copy; those in 8 bits as `type`.
at::Tensor gather_rows(const at::Tensor& cache, const std::vector<CacheRun>& runs, at::ScalarType type);

// The largest slot, plus one, that the sequence needs for its P + T rows. A block table too short for them needs one
// beyond any cache.
int64_t slots_needed(const BatchLayout& layout, const SequenceRows& sequence);

}  // namespace cepe::model
