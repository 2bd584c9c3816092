// One step: who goes on, one pass of the decoder, the next tokens.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <exception>
#include <iterator>
#include <span>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "context/chunk.h"
#include "engine/plain_error.h"
#include "engine/sampled.h"
#include "engine/stepping.h"
#include "ops/device.h"
#include "ops/shared_cores.h"

namespace cepe::engine {
namespace {

constexpr size_t most_drawn = 64;  // rows of logits at one time: a request may ask for thousands of answers

// Notes with which error an answer of the job failed: for who asked, and as the step's where it is the first.
void note(Job& job, const std::exception_ptr& failure, std::exception_ptr& error) {
  if (!job.failure) job.failure = failure;
  if (!error) error = failure;
}

}  // namespace

Sequence& Engine::add_sequence(std::unique_ptr<Sequence> sequence) {
  sequence->rows.age = next_age_++;
  return *sequences_.emplace(sequence->rows.age, std::move(sequence)).first->second;
}

// What was submitted since. One for whose sampler there is no memory ends as cancelled.
void Engine::take_in(std::exception_ptr& error) {
  std::vector<std::unique_ptr<Sequence>> arrived;
  {
    const std::lock_guard lock(mutex_);
    arrived.swap(arrived_);
  }
  if (!arrived.empty()) hot_.drop_expired();
  for (auto& one : arrived) {
    Sequence& sequence = add_sequence(std::move(one));
    sequence.context = hot_.current(sequence.context);
    scheduler_.add(sequence.rows);
    try {
      sequence.begin(model_->decoder.config.vocabulary, model_->decoder.device());
    } catch (...) {
      sequence.finish = Finish::cancelled;
      note(*sequence.job, current_plainly(), error);
    }
  }
}

// Takes out what has ended, then tells of it: the callback may ask for more, or end others.
void Engine::drop_finished(std::exception_ptr& error) {
  std::vector<std::unique_ptr<Sequence>> ended;
  for (auto at = sequences_.begin(); at != sequences_.end();) {
    if (!at->second->ended()) {
      ++at;
      continue;
    }
    scheduler_.remove(at->second->rows);
    leave(*at->second->job);
    ended.push_back(std::move(at->second));
    at = sequences_.erase(at);
  }
  for (const auto& sequence : ended) {
    try {
      sequence->conclude();
    } catch (...) {
      note(*sequence->job, std::current_exception(), error);
    }
  }
}

// And of whoever, of those that are there now, a callback ends meanwhile.
void Engine::drop_all_finished(std::exception_ptr& error) {
  const uint64_t newer = next_age_;
  const auto has_ended = [](const auto& entry) { return entry.second->ended(); };
  do drop_finished(error);
  while (std::any_of(sequences_.begin(), sequences_.lower_bound(newer), has_ended));
}

// Contexts that have become hot, for all that read them.
void Engine::keep_hot() {
  if (!hot_.due()) return;
  hot_.drop_expired();
  const std::vector<ContextPointer> made = hot_.keep(kept_budget());
  counters_.hot_contexts += static_cast<int64_t>(made.size());
  if (made.empty()) return;
  for (const ContextPointer& context : made) kept_.add(context);
  for (const auto& [age, sequence] : sequences_) sequence->context = hot_.current(sequence->context);
}

// The oldest half of a full window becomes chunks of the context, whole ones where there is room for one; of a prompt
// that is longer than the window as many halves as do not fit.
void Engine::slide(Sequence& sequence) {
  const Endless& endless = sequence.job->request.endless;
  const int64_t window = window_of(sequence.job->request), chunk_size = model_->adapter->chunk_size;
  const int64_t keep = std::min(endless.keep_first, window), half = (window - keep) / 2;
  const int64_t unit = std::max<int64_t>(1, half >= chunk_size ? half / chunk_size * chunk_size : half);
  const int64_t beyond = static_cast<int64_t>(sequence.tokens.size()) - window;
  const int64_t moved = (beyond + unit - 1) / unit * unit;
  const std::span<const text::Token> oldest =
      std::span(sequence.tokens).subspan(static_cast<size_t>(keep), static_cast<size_t>(moved));
  ContextPointer slid = slid_.find(sequence.context, *endless.store, oldest);
  if (!slid) {
    hot_.drop_expired();  // the room of K and V that only this answer has
    slid = extended(sequence.context, endless.store->get_or_encode(context::split(oldest, chunk_size, 0)));
    slid_.add(sequence.context, *endless.store, oldest, slid);
    if (sequence.context.use_count() == 1) hot_.follow(sequence.context, slid);
  }
  sequence.context = std::move(slid);
  sequence.tokens.erase(sequence.tokens.begin() + keep, sequence.tokens.begin() + keep + moved);
  scheduler_.forget(sequence.rows);
  sequence.rows.length = sequence.rows.text = static_cast<int64_t>(sequence.tokens.size());
}

void Engine::slide_windows(std::exception_ptr& error) {
  for (const auto& [age, sequence] : sequences_) {
    if (static_cast<int64_t>(sequence->tokens.size()) <= window_of(sequence->job->request)) continue;
    try {
      slide(*sequence);
    } catch (...) {
      sequence->finish = Finish::cancelled;
      note(*sequence->job, current_plainly(), error);
    }
  }
}

// A pass that fails is tried again sequence by sequence: whoever fails alone is ended, the others need not be.
void Engine::pass(std::vector<Scheduler::Piece> pieces, std::vector<Sampled>& sampled, std::exception_ptr& error) {
  std::vector<int64_t> before;
  before.reserve(pieces.size());
  for (const Scheduler::Piece& piece : pieces) before.push_back(piece.sequence->cached);
  try {
    run(pieces, sampled);
  } catch (const std::exception& failure) {
    if (pieces.size() == 1) {
      Sequence& sequence = sequence_of(*pieces.front().sequence);
      sequence.finish = Finish::cancelled;
      note(*sequence.job, current_plainly(), error);
      return;
    }
    base::detail(std::string("engine: a pass over several sequences failed, they go one by one: ") + failure.what());
    size_t owned = 0;
    for (size_t i = 0; i < pieces.size(); ++i) {
      if (pieces[i].sequence->cached != before[i]) continue;
      // A step by tables overwrites the logits of the one before (BatchStep::logits).
      for (; owned < sampled.size(); ++owned) sampled[owned].logits = sampled[owned].logits.clone();
      pass({pieces[i]}, sampled, error);
    }
  }
}

// The passes of a step, and the next tokens.
void Engine::advance(std::exception_ptr& error) {
  std::vector<Scheduler::Piece> pieces = scheduler_.plan();
  while (!reserve(error)) {
    drop_finished(error);
    if (sequences_.empty()) return;
    pieces = scheduler_.plan();
  }
  std::vector<Sampled> sampled;
  std::erase_if(pieces, [&](const Scheduler::Piece& piece) {
    if (piece.count > 0) return false;
    Sequence& sequence = sequence_of(*piece.sequence);
    sampled.push_back({&sequence, std::move(sequence.logits), std::move(sequence.masses)});
    return true;
  });
  try {
    if (options_.batch_invariant) {
      for (const Scheduler::Piece& piece : pieces) pass({piece}, sampled, error);
    } else {
      pass(std::move(pieces), sampled, error);
    }
    sample(sampled, error);
  } catch (...) {  // a text that was read and has no next token is read again
    for (const auto& [age, sequence] : sequences_)
      if (sequence->rows.pending() == 0) scheduler_.forget(sequence->rows);
    throw;
  }
  drop_finished(error);
}

bool Engine::step() {
  const Stepping stepping(stepping_, between_steps_);
  std::exception_ptr error;
  const bool more = step_once(error);
  if (error) std::rethrow_exception(error);
  return more;
}

// `error`: the first of those with which single answers ended (Job::failure). What fails for all is thrown.
bool Engine::step_once(std::exception_ptr& error) {
  const at::NoGradGuard none;
  const ops::WorkOfAllThreads work;
  take_in(error);
  drop_all_finished(error);
  keep_hot();
  slide_windows(error);
  if (error) drop_all_finished(error);
  if (!sequences_.empty()) advance(error);
  const std::lock_guard lock(mutex_);
  return !sequences_.empty() || !arrived_.empty();
}

// The cache's tensors become at least so long, one at a time: at no time are there two caches. False where there is no
// memory; some may be longer then.
bool Engine::grow(int64_t slots) {
  batch_step_.reset();  // it refers to the cache
  try {
    if (cache_.keys.empty()) {
      cache_ = make_cache(slots);
      return true;
    }
    for (auto* tensors : {&cache_.keys, &cache_.values}) {
      for (at::Tensor& tensor : *tensors) {
        if (tensor.size(0) < slots) tensor = model::with_slots(tensor, slots);
      }
    }
  } catch (const std::exception& error) {
    if (!ops::is_out_of_memory(error)) throw;
    return false;
  }
  return true;
}

// The cache gets the blocks that were taken. False where there is no memory for them: whoever had one lost it.
bool Engine::reserve(std::exception_ptr& error) {
  const int64_t needed = pool_.reach() * block_rows, there = cache_.slots();
  if (needed <= there) return true;
  // What the largest request may come to need, so that it grows once; where steps are recorded, which has to be done
  // anew for another cache, all of them.
  int64_t largest = 0, all = block_rows;
  for (const auto& [age, sequence] : sequences_) {
    const int64_t rows = (rows_of(sequence->job->request) + block_rows - 1) / block_rows * block_rows;
    largest = std::max(largest, rows);
    all += rows;
  }
  const int64_t rounded =
      (std::max(by_tables_ ? all : largest, needed + there / 4) + block_rows - 1) / block_rows * block_rows;
  const int64_t wanted = std::max(needed, std::min(rounded, pool_.count() * block_rows));
  do {
    if (grow(wanted) || grow(needed)) return true;
  } while (hot_.forget());
  give_up_beyond(there, error);
  return false;
}

// The cache stays as it is: whoever has blocks beyond waits, and whoever could never come to its end is ended.
void Engine::give_up_beyond(int64_t slots, std::exception_ptr& error) {
  const int64_t blocks = std::max<int64_t>(slots / block_rows, padding_block_ + 1);
  for (const auto& [age, sequence] : sequences_) {
    if (std::ranges::any_of(sequence->rows.blocks, [&](int32_t block) { return block >= blocks; }))
      scheduler_.preempt(sequence->rows);
  }
  {
    const std::lock_guard lock(mutex_);  // submit() asks for it
    pool_.shrink(blocks);
  }
  take_in(error);  // who came before that
  for (const auto& [age, sequence] : sequences_) {
    const int64_t rows = rows_of(sequence->job->request);
    if (sequence->ended() || scheduler_.fits(rows)) continue;
    sequence->finish = Finish::cancelled;
    const base::Error refusal(base::ErrorCode::out_of_memory, "a request needs a self-attention cache of " +
                                                                  std::to_string(rows) + " rows; there is memory for " +
                                                                  std::to_string(slots) + ": ask for fewer tokens");
    note(*sequence->job, std::make_exception_ptr(refusal), error);
  }
}

void Engine::copy_block(int32_t from, int32_t to) {
  for (auto* tensors : {&cache_.keys, &cache_.values}) {
    for (const at::Tensor& tensor : *tensors)
      tensor.narrow(0, to * block_rows, block_rows).copy_(tensor.narrow(0, from * block_rows, block_rows));
  }
}

// The other answers to a prompt that has just been read: they go on from the same row. Where as many run as may, the
// next one waits with that row, and the others begin with it.
void Engine::fork(const Sampled& parent, std::vector<Sampled>& sampled, std::exception_ptr& error) {
  Sequence& from = *parent.sequence;
  while (from.forks > 0 && !from.ended()) {
    const int64_t sample = from.job->request.samples - from.forks;
    auto next = std::make_unique<Sequence>(from.job, sample, from.context, *tokenizer_);
    next->begin(model_->decoder.config.vocabulary, model_->decoder.device());
    Sequence& other = add_sequence(std::move(next));
    ++from.job->answers;
    --from.forks;
    other.tokens = from.tokens;  // a window that slid before the first token
    other.rows.length = other.rows.text = from.rows.length;
    const bool runs = scheduler_.fork(other.rows, from.rows);
    if (other.rows.cached % block_rows != 0 && reserve(error))
      copy_block(from.rows.blocks.back(), other.rows.blocks.back());
    if (runs) {
      sampled.push_back({&other, parent.logits, parent.masses});
    } else {
      other.forks = std::exchange(from.forks, 0);
      other.logits = parent.logits.clone();  // not a row of the whole batch's
      other.masses = parent.masses;
    }
  }
}

// All of their next tokens, or an error and none.
void Engine::draw(std::span<const Sampled> sampled, std::exception_ptr& error) {
  std::vector<at::Tensor> rows;
  std::vector<Sampler*> samplers;
  std::vector<int64_t> alternatives;
  for (const Sampled& one : sampled) {
    rows.push_back(one.logits);
    samplers.push_back(&*one.sequence->sampler);
    alternatives.push_back(one.sequence->job->request.log_probabilities);
  }
  const std::vector<Choice> choices =
      plainly([&] { return choose(rows.size() == 1 ? rows.front() : at::cat(rows, 0), samplers, alternatives); });
  for (size_t i = 0; i < sampled.size(); ++i) {
    Sequence& sequence = *sampled[i].sequence;
    if (sequence.ended()) continue;  // cancelled, by another's callback or another thread
    if (sequence.job->request.attribution) sequence.completion.page_masses.push_back(sampled[i].masses);
    try {
      sequence.accept(choices[i], window_of(sequence.job->request));
    } catch (...) {
      note(*sequence.job, std::current_exception(), error);
    }
  }
}

void Engine::sample(std::vector<Sampled>& sampled, std::exception_ptr& error) {
  if (sampled.empty()) return;
  for (size_t i = 0, count = sampled.size(); i < count; ++i) {
    const Sampled parent = sampled[i];
    plainly([&] { fork(parent, sampled, error); });
  }
  for (size_t first = 0; first < sampled.size(); first += most_drawn)
    draw(std::span(sampled).subspan(first, std::min(most_drawn, sampled.size() - first)), error);
}

}  // namespace cepe::engine
