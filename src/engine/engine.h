// Generation and scoring with continuous batching: requests join and leave between steps, each with a context, sampling
// and length of its own. A step is one pass of the decoder over a ragged batch: a row for each sequence that decodes,
// and pieces of the texts that others still have to read.
//
// Who else is in the batch changes logits by rounding alone: products of more rows may add in another order (float32:
// below 1e-4; bfloat16: below 2e-2). With EngineOptions::batch_invariant they are the same bit for bit: every sequence
// passes through the decoder alone, in pieces that depend on nothing else, so that a step of n sequences reads the
// weights n times (a batch is then no faster than one sequence after the other).
//
// submit() and cancel() may be called by any thread at any time, so that the threads of a server hand over what one
// thread steps through. Everything else is an error (invalid_argument) rather than a race while another thread is in
// step() or generate(). Between steps any thread may call prepare(), set_context(), score() and counters(): one waits
// for the other, and so does a step that begins meanwhile. Callbacks are called within step() and may call all of
// these; step() and generate() from there are an error too.
#pragma once

#include <atomic>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "context/projection_store.h"
#include "engine/block_pool.h"
#include "engine/hot_contexts.h"
#include "engine/kept_contexts.h"
#include "engine/request.h"
#include "engine/scheduler.h"
#include "engine/slid_contexts.h"
#include "model/batch_step.h"
#include "model/cepe_model.h"
#include "text/tokenizer.h"

namespace cepe::engine {

// How the self-attention cache is kept. automatic: bfloat16, or float32 with float32 weights; int8: 8 bits with
// a scale a head (ops/int8_rows.h), half the bytes. What that costs: docs/performance.md.
enum class CacheType { automatic, int8 };

struct EngineOptions {
  model::CrossAttentionPath path = model::CrossAttentionPath::automatic;
  // Budget for K and V of all contexts together, in all layers; 0 = never, -1 = 40 % of the memory that is free when
  // they are to be made. With batch_invariant nothing may depend on other contexts or on free memory: the budget is for
  // each context by itself, -1 = without limit, and where there is no memory that is an error.
  int64_t kept_bytes = -1;
  int64_t prefill_rows = 2048;  // rows of one pass at most: where K and V are not kept, each pass projects them anew
  bool scores_beyond_positions = false;  // whether a text longer than the model's positions may be scored; learned
                                         // positions end all the same
  int64_t max_sequences = 64;            // in one batch; more wait
  // Rows of the self-attention cache, over all sequences. 0 = as many as a quarter of the memory free at the beginning
  // holds, and at least the model's positions; taken as they are needed.
  int64_t cache_rows = 0;
  bool batch_invariant = false;
  // Tokens of sequences that decode, and short texts, pass through the decoder by tables (model/batch_step.h), on a GPU
  // as recorded graphs. On the CPU, where nothing is launched, only to test it.
  bool steps_by_tables_on_cpu = false;
  KeptType kept_type = KeptType::automatic;
  CacheType cache_type = CacheType::automatic;
  // Where K and V of contexts from a store, kept in 8 bits, are read from and written to; may be none.
  std::shared_ptr<context::ProjectionStore> projections = nullptr;
};

struct EngineCounters {
  int64_t steps = 0, rows = 0;  // passes' rows, texts and generated tokens
  int64_t preemptions = 0;      // how often a sequence lost its cache to another
  int64_t cache_bytes = 0;      // of the self-attention cache as it stands
  int64_t steps_by_tables = 0;  // of the passes, those of model/batch_step.h
  int64_t hot_contexts = 0;     // whose K and V were made because they were asked so often
  int64_t kept_bytes = 0;       // of K and V of all contexts that somebody has
};

struct Job;
struct Sequence;

class Engine {
 public:
  // Model and tokenizer must outlive the engine. Errors: invalid_argument for options out of range.
  Engine(const model::CepeModel& model, const text::Tokenizer& tokenizer, EngineOptions options = {});
  ~Engine();  // what is still being answered is dropped, and no callback called
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // A context that requests may share. Where the cost model says so and the budget allows, K and V of all layers are
  // projected now and kept, or later, when the context has been asked often enough to pay for it (hot_contexts.h; not
  // with batch_invariant, where nothing may depend on who asked before). Errors: invalid_argument without an adapter,
  // and for states that are not its encoder's or were moved from; out_of_memory, which K and V are a reason for only
  // where they must be kept: with path kept, or batch_invariant.
  ContextPointer prepare(model::ContextStates context) const;
  // The context of all further requests that bring none (an empty one = none). The one before goes first: its K and V
  // are room for those of this one. Errors: as prepare; there is none then.
  void set_context(model::ContextStates context);
  // Refers to it until the next set_context(), which no other thread may call meanwhile.
  const model::ContextStates& context() const { return *context_; }

  // Any thread. The request's first rows are computed by the next steps. Errors: invalid_argument (empty prompt, prompt
  // longer than the model's positions, ids outside the vocabulary, sampling out of range, endless without adapter, a
  // context as prepare refuses it), out_of_memory where the cache could never hold it, with the figures.
  RequestId submit(Request request);
  // One pass for whoever is next. False where nothing is left to do. An exception of a callback, or of a sequence whose
  // pass fails also when it is alone, ends its answer as cancelled and is thrown on when the step is done: others go on
  // with the next. Where memory is refused that is out_of_memory, and no request is lost but those that it ended.
  bool step();
  // Any thread. Its answers end as cancelled, and its blocks are free, before the next pass. False where there is no
  // such request, or none any more.
  bool cancel(RequestId id);

  // submit and step until it is done; other requests go on meanwhile, those that other threads submit too. Throws what
  // its own callbacks throw and what fails for it or for all, as step(); answers of others that fail end as cancelled,
  // which their on_finish is told. base::Interrupted after Ctrl-C.
  Completion generate(const Request& request);
  std::vector<Completion> generate_samples(Request request);  // [request.samples]

  // ln p(ids[t + 1] | ids[0..t], context()) for t = first .. T-2: [T - 1 - first] float32. In pieces of prefill_rows,
  // so that logits stay small. Errors: invalid_argument (nothing to score, more tokens than the model's positions, ids
  // outside the vocabulary), out_of_memory, base::Interrupted after Ctrl-C.
  at::Tensor score(std::span<const text::Token> ids, int64_t first = 0) const;

  EngineCounters counters() const;

 private:
  // engine.cpp
  std::unique_lock<std::mutex> outside_steps() const;
  void check(const Request& request) const;
  void require_room(const Request& request) const;
  int64_t window_of(const Request& request) const;
  int64_t rows_of(const Request& request) const;
  ContextPointer prepared(model::ContextStates context) const;
  ContextPointer registered(model::ContextStates context) const;
  bool may_grow(const ContextPointer& context, int64_t after) const;
  void extend_kept(model::ContextStates& joined, model::ContextStates& added) const;
  ContextPointer extended(const ContextPointer& context, model::ContextStates added) const;
  int64_t kept_budget() const;
  std::shared_ptr<Job> enter(Request request);
  void discard(RequestId id);
  void leave(Job& job);
  // engine_step.cpp
  struct Sampled;
  Sequence& sequence_of(const Scheduled& rows) { return *sequences_.at(rows.age); }
  Sequence& add_sequence(std::unique_ptr<Sequence> sequence);
  void take_in(std::exception_ptr& error);
  void drop_finished(std::exception_ptr& error);
  void drop_all_finished(std::exception_ptr& error);
  void keep_hot();
  void count_passes(std::span<const Scheduler::Piece> pieces);
  void slide(Sequence& sequence);
  void slide_windows(std::exception_ptr& error);
  bool grow(int64_t slots);
  bool reserve(std::exception_ptr& error);
  void give_up_beyond(int64_t slots, std::exception_ptr& error);
  void advance(std::exception_ptr& error);
  bool step_once(std::exception_ptr& error);
  void pass(std::vector<Scheduler::Piece> pieces, std::vector<Sampled>& sampled, std::exception_ptr& error);
  void run(std::vector<Scheduler::Piece> pieces, std::vector<Sampled>& sampled);
  void run_pieces(std::span<const Scheduler::Piece> pieces, std::vector<Sampled>& sampled);
  std::pair<std::vector<Scheduler::Piece>, std::vector<Scheduler::Piece>> parted(
      std::span<const Scheduler::Piece> pieces);
  bool takes_step(const Scheduler::Piece& piece);
  bool run_step(std::span<const Scheduler::Piece> pieces, std::vector<Sampled>& sampled);
  void fork(const Sampled& parent, std::vector<Sampled>& sampled, std::exception_ptr& error);
  void draw(std::span<const Sampled> sampled, std::exception_ptr& error);
  void sample(std::vector<Sampled>& sampled, std::exception_ptr& error);
  void copy_block(int32_t from, int32_t to);
  model::CrossAttentionInput cross(std::vector<const model::ContextStates*> contexts) const;
  model::KvCache make_cache(int64_t slots) const;
  at::Tensor scores_of(std::span<const text::Token> ids, int64_t first) const;  // engine_score.cpp

  const model::CepeModel* model_;
  const text::Tokenizer* tokenizer_;
  EngineOptions options_;
  ContextPointer context_;
  mutable HotContexts hot_;
  mutable KeptContexts kept_;
  SlidContexts slid_;
  BlockPool pool_;
  Scheduler scheduler_;
  model::KvCache cache_;
  bool by_tables_ = false;       // while steps by tables are taken at all
  bool texts_by_tables_ = true;  // and short texts are rows of them
  int32_t padding_block_ = -1;   // of no sequence; taken where they are
  std::unique_ptr<model::BatchStep> batch_step_;
  std::map<uint64_t, std::unique_ptr<Sequence>> sequences_;  // by age
  std::atomic<std::thread::id> stepping_;                    // the thread that is in step() or generate()
  mutable std::mutex between_steps_;                         // held by who calls between them, one thread at a time
  uint64_t next_age_ = 0;
  EngineCounters counters_;

  // What submit() and cancel() touch, on any thread. Also guards that context_ and the pool's size change.
  std::mutex mutex_;
  RequestId next_request_ = 0;
  std::map<RequestId, std::shared_ptr<Job>> open_;  // with answers that have not ended
  std::vector<std::unique_ptr<Sequence>> arrived_;  // that no step has taken in
};

}  // namespace cepe::engine
