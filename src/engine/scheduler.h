// Who goes on in the next step, and with how many rows. Plain numbers, no tensors.
//
// Sequences are ordered by priority, then by age. A step gives every running sequence that decodes its row, and what is
// left of the budget to those that still have text to read, in even shares within one priority: a long prompt does not
// keep the short ones behind it waiting. Where blocks are short, the youngest of the lowest priority loses its own
// (never one for the sake of a younger or lesser one), waits at its place in the order and reads its text again: the
// oldest of the highest priority always gets on, so everything ends. Blocks of one that waits (fork) go before those of
// any that runs.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/block_pool.h"

namespace cepe::engine {

struct SchedulerOptions {
  int64_t rows_of_block = block_rows;
  int64_t max_sequences = 64;  // running at one time
  int64_t step_rows = 2048;    // rows of one step at most; a row for each decoding sequence is always given
  // Text is read in pieces that end at multiples of step_rows, what was generated (after a loss of blocks) row by row,
  // whoever else is there.
  bool fixed_pieces = false;
  int64_t reserved_blocks = 0;  // of the pool, that no sequence gets: whoever made it has taken them
};

// What the scheduler knows of a sequence.
struct Scheduled {
  uint64_t age = 0;      // smaller = older; unique
  int64_t priority = 0;  // larger goes first
  int64_t length = 0;    // tokens that are known: text to read and what was generated
  int64_t text = 0;      // of these, the text to read
  int64_t cached = 0;    // rows whose keys and values are in the cache
  std::vector<int32_t> blocks;

  int64_t pending() const { return length - cached; }
};

class Scheduler {
 public:
  struct Piece {
    Scheduled* sequence;
    int64_t count;  // rows cached .. cached + count - 1; blocks for them are there. 0: all are cached (fork)
  };

  // The pool must outlive the scheduler. Errors: invalid_argument for options below 1.
  Scheduler(SchedulerOptions options, BlockPool& pool);

  // Whether that many rows fit the pool at all, with everything else gone.
  bool fits(int64_t rows) const { return blocks_for(rows) <= blocks(); }
  int64_t blocks() const { return pool_->count() - options_.reserved_blocks; }

  void add(Scheduled& sequence);  // waits for its turn; must stay where it is until removed
  void remove(Scheduled& sequence);
  // A sequence that reads the rows of `from` as its own: full blocks are shared, the last is taken anew where it is not
  // full (its rows are to be copied from blocks.back() of `from`). False where as many run as may: it waits, with its
  // blocks until others need them. Without a block for the last it waits as any other does.
  bool fork(Scheduled& sequence, const Scheduled& from);
  // Its rows are forgotten, its blocks given back. It stays where it is.
  void forget(Scheduled& sequence);
  // forget, and where it runs it waits again.
  void preempt(Scheduled& sequence);

  // Empty only where there is no sequence. Errors: internal where none that is there fits the cache.
  std::vector<Piece> plan();

  int64_t running() const { return static_cast<int64_t>(running_.size()); }
  int64_t waiting() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t preemptions() const { return preemptions_; }

 private:
  int64_t blocks_for(int64_t rows) const { return (rows + options_.rows_of_block - 1) / options_.rows_of_block; }
  int64_t wanted_blocks() const;
  bool forget_waiting(const Scheduled* but = nullptr);
  void admit();
  bool make_room(Scheduled& sequence, int64_t rows);
  int64_t piece_rows(const Scheduled& sequence, int64_t share) const;
  void plan_once();
  void give(Scheduled& sequence, int64_t rows);
  void read_texts(const std::vector<Scheduled*>& reading, int64_t budget);

  SchedulerOptions options_;
  BlockPool* pool_;
  std::vector<Scheduled*> waiting_, running_;
  std::vector<Piece> pieces_;
  int64_t preemptions_ = 0;
};

}  // namespace cepe::engine
