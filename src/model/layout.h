// BatchLayout: one ragged batch. Every layer takes it; a single prompt is a batch of one.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <span>
#include <vector>

namespace cepe::model {

// The rows of one sequence in the packed batch.
struct SequenceRows {
  int64_t first = 0;       // row of its first token of this call
  int64_t count = 0;       // T: tokens of this call
  int64_t cached = 0;      // P: tokens already in the cache; positions go on from here
  int64_t first_slot = 0;  // its first row in the KvCache; [first_slot, first_slot + P + T) belong to it, unless
  // there is a block table: then row r of the sequence lies in slot blocks[r / block_rows] * block_rows + r %
  // block_rows
  std::vector<int32_t> blocks = {};
};

struct StepTables;

struct BatchLayout {
  at::Tensor tokens;     // [N] int64
  at::Tensor positions;  // [N] int64
  std::vector<SequenceRows> sequences;
  // T where all sequences have as many tokens, start at 0 and follow one another: then layers may take them as [B, T].
  int64_t uniform_length = 0;
  int64_t block_rows = 64;  // rows of one block of the block tables
  // Blocks are read one by one, whichever lie side by side: sums have one order then, wherever the blocks are.
  bool by_block = false;
  // Where each row's keys and values are written; undefined on the CPU (`sequences` say it) unless there is a `step`.
  at::Tensor slots;  // [N] int64

  // One token a sequence, and everything that layers ask of its place is on the device (step_tables.h); of `sequences`
  // only their number counts then. nullptr: as `sequences` say.
  std::shared_ptr<const StepTables> step = nullptr;

  int64_t rows() const { return tokens.size(0); }
};

// B sequences of equal length T without a cache, positions from 0. tokens [B, T].
BatchLayout uniform_layout(const at::Tensor& tokens);
// One sequence of T tokens that follows `cached` tokens in a cache. tokens [T].
BatchLayout single_layout(const at::Tensor& tokens, int64_t cached);

// Rows of one sequence for paged_layout.
struct PagedPiece {
  std::span<const int32_t> tokens;  // T
  int64_t cached = 0;               // P
  std::span<const int32_t> blocks;  // at least ceil((P + T) / block_rows)
};
// The pieces one after the other, each with its block table, positions from its `cached` on.
BatchLayout paged_layout(std::span<const PagedPiece> pieces, int64_t block_rows, at::Device device);

// Keys and values of the decoder's self-attention, rotated, for all layers. Layers read and write it; whoever made it
// owns the slots' meaning (BatchLayout says which belong to which sequence).
struct KvCache {
  std::vector<at::Tensor> keys;    // L x [slots, G, D], or in 8 bits [slots, G, D + 4] (ops/int8_rows.h)
  std::vector<at::Tensor> values;  // likewise

  // Those that every layer has: where a cache grows, the last layer's values are the last to do so.
  int64_t slots() const { return values.empty() ? 0 : values.back().size(0); }
};

// Bytes of a slot, keys and values of all layers. type: kByte: in 8 bits.
int64_t cache_slot_bytes(int64_t layers, int64_t groups, int64_t head_width, at::ScalarType type);
// A longer tensor of a cache, of the same layout, with its rows.
at::Tensor with_slots(const at::Tensor& cache, int64_t slots);
// options: kByte for a cache in 8 bits.
KvCache make_kv_cache(int64_t layers, int64_t slots, int64_t groups, int64_t head_width, at::TensorOptions options);

}  // namespace cepe::model
