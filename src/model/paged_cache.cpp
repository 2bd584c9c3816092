#include "model/paged_cache.h"

#include <ATen/ops/cat.h>

#include <algorithm>
#include <limits>

#include "ops/int8_rows.h"

namespace cepe::model {

std::vector<CacheRun> cache_runs(const BatchLayout& layout, const SequenceRows& sequence, int64_t begin, int64_t end) {
  if (begin >= end) return {};
  if (sequence.blocks.empty()) return {{sequence.first_slot + begin, end - begin}};
  std::vector<CacheRun> runs;
  const int64_t size = layout.block_rows;
  for (int64_t row = begin; row < end;) {
    const int64_t within = row % size, count = std::min(size - within, end - row);
    const int64_t slot = sequence.blocks[static_cast<size_t>(row / size)] * size + within;
    const bool adjacent = !runs.empty() && runs.back().slot + runs.back().count == slot;
    if (adjacent && !layout.by_block)
      runs.back().count += count;
    else
      runs.push_back({slot, count});
    row += count;
  }
  return runs;
}

void write_rows(const BatchLayout& layout, const at::Tensor& keys, const at::Tensor& values,
                const at::Tensor& cache_keys, const at::Tensor& cache_values) {
  const at::Tensor kept_keys = ops::as_cached(keys, cache_keys), kept_values = ops::as_cached(values, cache_values);
  if (layout.slots.defined()) {  // one kernel for the whole batch
    cache_keys.index_copy_(0, layout.slots, kept_keys);
    cache_values.index_copy_(0, layout.slots, kept_values);
    return;
  }
  for (const SequenceRows& sequence : layout.sequences) {
    int64_t row = sequence.first;
    for (const CacheRun& run : cache_runs(layout, sequence, sequence.cached, sequence.cached + sequence.count)) {
      cache_keys.narrow(0, run.slot, run.count).copy_(kept_keys.narrow(0, row, run.count));
      cache_values.narrow(0, run.slot, run.count).copy_(kept_values.narrow(0, row, run.count));
      row += run.count;
    }
  }
}

at::Tensor gather_rows(const at::Tensor& cache, const std::vector<CacheRun>& runs, at::ScalarType type) {
  if (runs.size() == 1) return ops::unpacked_rows(cache.narrow(0, runs.front().slot, runs.front().count), type);
  std::vector<at::Tensor> parts;
  parts.reserve(runs.size());
  for (const CacheRun& run : runs) parts.push_back(cache.narrow(0, run.slot, run.count));
  return ops::unpacked_rows(at::cat(parts, 0), type);
}

int64_t slots_needed(const BatchLayout& layout, const SequenceRows& sequence) {
  const int64_t reach = sequence.cached + sequence.count;
  if (sequence.blocks.empty()) return sequence.first_slot + reach;
  const int64_t blocks = (reach + layout.block_rows - 1) / layout.block_rows;
  if (blocks > static_cast<int64_t>(sequence.blocks.size())) return std::numeric_limits<int64_t>::max();
  return (*std::max_element(sequence.blocks.begin(), sequence.blocks.begin() + blocks) + int64_t{1}) *
         layout.block_rows;
}

}  // namespace cepe::model
