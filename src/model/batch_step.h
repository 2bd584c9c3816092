// Decoding: B rows, one token each of as many sequences or several in a row of one, in a pass whose every place is read
// from tables on the device, so that it can be recorded as a graph (ops/device_graph.h): launching a step's thousand
// kernels one by one takes a GPU longer than running them. One launch of a kernel serves all rows, whatever their
// lengths and contexts.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "model/cepe_model.h"

namespace cepe::model {

class BatchStep {
 public:
  struct Row {
    int64_t position = 0;  // of its token; the rows before it are in the cache, or rows of this step
    // Of the cache: row r lies in slot blocks[r / block_rows] * block_rows + r % ... Rows of one sequence give one
    // span; where sequences share blocks, none of them has its token there.
    std::span<const int32_t> blocks;
    const ContextStates* context =
        nullptr;               // absorbed, unless K and V of all contexts of the batch are kept and cheaper
    bool asks_masses = false;  // what it gives to each page of its context is wanted (page_masses.h)
    bool asks_logits = true;   // a text's are wanted of its last row alone
  };

  // Whether model and cache can be stepped so: kernels for these widths, no sliding window shorter than the cache, no
  // rotation that depends on a text's length.
  static bool takes(const CepeModel& model, const KvCache& cache);
  // Whether these contexts can be attended to.
  static bool takes(const CepeModel& model, const ContextStates& context);

  // Whether that many rows of one sequence should attend to it in one step: no other way is cheaper (cost_model.h).
  static bool takes_together(const CepeModel& model, const ContextStates& context, int64_t rows,
                             CrossAttentionPath path = CrossAttentionPath::automatic);

  // Model and cache must outlive it; the cache's tensors must stay where they are. padding_slot: a slot of the cache
  // that belongs to no sequence; batches are filled up to a few sizes, and what fills them is written there.
  // path: automatic, or kept where K and V of contexts are to be read although the states would be cheaper.
  BatchStep(const CepeModel& model, const KvCache& cache, int64_t block_rows, int64_t padding_slot,
            CrossAttentionPath path = CrossAttentionPath::automatic);
  ~BatchStep();
  BatchStep(const BatchStep&) = delete;
  BatchStep& operator=(const BatchStep&) = delete;

  // tokens int64 [B], on the CPU or the device; rows [B]. Rows of one context side by side read it together.
  // -> logits of the next tokens of the rows that ask, in their order, [A, V] float32, overwritten by the next call. On
  // a GPU a size is recorded (some 30 ms) when it is asked the second time, with several rows of one sequence the
  // ninth: those save less by it, a tenth of a pass, and seldom return. Contexts must stay until the next call. Errors:
  // invalid_argument for a row outside the cache or its blocks.
  at::Tensor logits(const at::Tensor& tokens, std::span<const Row> rows);
  // What the rows that asked in that call gave to their pages, mean over heads and layers: one row's pages after
  // another's, float32. Overwritten by the next call; undefined where none asked.
  const at::Tensor& page_masses() const { return page_masses_; }

  // How many sizes are known.
  int64_t sizes() const { return static_cast<int64_t>(recordings_.size()); }

 private:
  struct Plan;
  struct Recording;
  bool reads_kept(std::span<const Row> rows) const;
  // Whether row `index` is the last of a sequence of the cache's tables: the next is not the next token of its text, or
  // attention does not take them together.
  bool ends_sequence(std::span<const Row> rows, size_t index) const;
  Recording& recording_for(const Plan& plan);
  void fill(Recording& recording, const at::Tensor& tokens, std::span<const Row> rows);
  void fill_contexts(Recording& recording, std::span<const Row> rows);
  void fill_masses(Recording& recording, std::span<const Row> rows);
  void run(Recording& recording);

  const CepeModel& model_;
  KvCache cache_;  // the same tensors
  int64_t block_rows_, padding_slot_;
  CrossAttentionPath path_;
  bool causal_;             // whether attention takes texts whole
  at::Tensor cache_bases_;  // [2, L, 1] int64: addresses of each layer's keys and values
  at::Tensor frequencies_, local_frequencies_;
  at::Tensor page_masses_;
  std::vector<std::unique_ptr<Recording>> recordings_;
};

}  // namespace cepe::model
