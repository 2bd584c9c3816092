#include "engine/scheduler.h"

#include <algorithm>
#include <string>

#include "base/error.h"

namespace cepe::engine {
namespace {

bool goes_first(const Scheduled* a, const Scheduled* b) {
  return a->priority != b->priority ? a->priority > b->priority : a->age < b->age;
}

void require_at_least_one(const char* what, int64_t value) {
  if (value >= 1) return;
  throw base::Error(base::ErrorCode::invalid_argument,
                    std::string(what) + " is " + std::to_string(value) + "; it must be at least 1");
}

}  // namespace

Scheduler::Scheduler(SchedulerOptions options, BlockPool& pool) : options_(options), pool_(&pool) {
  require_at_least_one("rows of a cache block", options.rows_of_block);
  require_at_least_one("sequences at one time", options.max_sequences);
  require_at_least_one("rows of a step", options.step_rows);
}

void Scheduler::add(Scheduled& sequence) { waiting_.push_back(&sequence); }

void Scheduler::remove(Scheduled& sequence) {
  forget(sequence);
  std::erase(waiting_, &sequence);
  std::erase(running_, &sequence);
}

bool Scheduler::fork(Scheduled& sequence, const Scheduled& from) {
  const bool copies = from.cached % options_.rows_of_block != 0, room = running() < options_.max_sequences;
  if (pool_->free() < (copies ? 1 : 0)) {
    add(sequence);
    return false;
  }
  const int64_t full = from.cached / options_.rows_of_block;
  sequence.blocks.assign(from.blocks.begin(), from.blocks.begin() + full);
  for (const int32_t block : sequence.blocks) pool_->share(block);
  if (copies) sequence.blocks.push_back(pool_->take());
  sequence.cached = from.cached;
  (room ? running_ : waiting_).push_back(&sequence);
  return room;
}

void Scheduler::forget(Scheduled& sequence) {
  for (const int32_t block : sequence.blocks) pool_->give_back(block);
  sequence.blocks.clear();
  sequence.cached = 0;
}

void Scheduler::preempt(Scheduled& sequence) {
  forget(sequence);
  if (std::erase(running_, &sequence) == 0) return;
  std::erase_if(pieces_, [&](const Piece& piece) { return piece.sequence == &sequence; });
  waiting_.push_back(&sequence);
  ++preemptions_;
}

// Blocks that running sequences will still take for the text that they have and one row more.
int64_t Scheduler::wanted_blocks() const {
  int64_t wanted = 0;
  for (const Scheduled* sequence : running_)
    wanted += std::max<int64_t>(0, blocks_for(sequence->length + 1) - static_cast<int64_t>(sequence->blocks.size()));
  return wanted;
}

// One that waits with blocks, but for `but`, loses them. False: there is none.
bool Scheduler::forget_waiting(const Scheduled* but) {
  const auto found = std::find_if(waiting_.rbegin(), waiting_.rend(),
                                  [&](const Scheduled* other) { return other != but && !other->blocks.empty(); });
  if (found == waiting_.rend()) return false;
  forget(**found);
  return true;
}

// A sequence begins where its whole text fits beside those that run, so that it need not be thrown out at once.
void Scheduler::admit() {
  std::sort(waiting_.begin(), waiting_.end(), goes_first);
  while (!waiting_.empty()) {
    Scheduled* next = waiting_.front();
    const bool may_run = running() < options_.max_sequences;
    const int64_t missing = blocks_for(next->length + 1) - static_cast<int64_t>(next->blocks.size());
    const bool fits = running_.empty() || wanted_blocks() + missing <= pool_->free();
    if (may_run && !fits && forget_waiting(next)) continue;
    if (may_run && fits) {
      waiting_.erase(waiting_.begin());
      running_.insert(std::upper_bound(running_.begin(), running_.end(), next, goes_first), next);
    } else if (running_.back()->priority < next->priority) {
      preempt(*running_.back());
      std::sort(waiting_.begin(), waiting_.end(), goes_first);
    } else {
      return;
    }
  }
}

// Blocks for `rows` rows more, at the cost of those behind it in the order. False: it had to wait itself.
bool Scheduler::make_room(Scheduled& sequence, int64_t rows) {
  while (true) {
    const int64_t missing = blocks_for(sequence.cached + rows) - static_cast<int64_t>(sequence.blocks.size());
    if (missing <= pool_->free()) {
      for (int64_t i = 0; i < missing; ++i)
        sequence.blocks.push_back(pool_->take(sequence.blocks.empty() ? -1 : sequence.blocks.back()));
      return true;
    }
    if (forget_waiting()) continue;
    const auto victim = std::find_if(running_.rbegin(), running_.rend(), [&](const Scheduled* other) {
      return other == &sequence || !other->blocks.empty();
    });
    const bool self = *victim == &sequence;
    preempt(**victim);
    if (self) return false;
  }
}

// Rows of the next piece of a sequence that has text to read; 0: not now.
int64_t Scheduler::piece_rows(const Scheduled& sequence, int64_t share) const {
  if (!options_.fixed_pieces) return std::min(sequence.pending(), share);
  const int64_t end = std::min(sequence.text, (sequence.cached / options_.step_rows + 1) * options_.step_rows);
  const int64_t count = sequence.cached < sequence.text ? end - sequence.cached : 1;
  return count <= share ? count : 0;
}

void Scheduler::give(Scheduled& sequence, int64_t rows) {
  if (rows > 0 && make_room(sequence, rows)) pieces_.push_back({&sequence, rows});
}

void Scheduler::read_texts(const std::vector<Scheduled*>& reading, int64_t budget) {
  for (size_t i = 0; i < reading.size() && budget > 0; ++i) {
    Scheduled& sequence = *reading[i];
    if (std::find(running_.begin(), running_.end(), &sequence) == running_.end()) continue;  // lost its blocks
    const auto same = std::count_if(reading.begin() + static_cast<int64_t>(i), reading.end(),
                                    [&](const Scheduled* other) { return other->priority == sequence.priority; });
    const int64_t share = options_.fixed_pieces ? budget : std::max<int64_t>(1, budget / same);
    const int64_t rows = piece_rows(sequence, share);
    give(sequence, rows);
    budget -= rows;
  }
}

std::vector<Scheduler::Piece> Scheduler::plan() {
  // Again where the only one that ran lost its blocks to itself: another has them then.
  for (int64_t left = running() + waiting(); left >= 0; --left) {
    plan_once();
    if (!pieces_.empty() || waiting_.empty()) return pieces_;
  }
  throw base::Error(base::ErrorCode::internal, "no sequence fits the cache of " + std::to_string(blocks()) + " blocks");
}

void Scheduler::plan_once() {
  pieces_.clear();
  std::sort(running_.begin(), running_.end(), goes_first);
  admit();
  std::vector<Scheduled*> decoding, reading;
  for (Scheduled* sequence : running_) {
    if (sequence->pending() > 0) (sequence->pending() == 1 ? decoding : reading).push_back(sequence);
  }
  for (Scheduled* sequence : decoding) {
    if (std::find(running_.begin(), running_.end(), sequence) != running_.end()) give(*sequence, 1);
  }
  const int64_t decoded = options_.fixed_pieces ? 0 : static_cast<int64_t>(pieces_.size());
  read_texts(reading, std::max<int64_t>(1, options_.step_rows - decoded));
  for (Scheduled* sequence : running_) {
    if (sequence->pending() == 0) pieces_.push_back({sequence, 0});
  }
}

}  // namespace cepe::engine
