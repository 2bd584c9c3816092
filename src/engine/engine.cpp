#include "engine/engine.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/memory.h"
#include "engine/check_context.h"
#include "engine/plain_error.h"
#include "engine/sequence.h"
#include "engine/stepping.h"
#include "engine/token_ids.h"
#include "model/cost_model.h"
#include "model/packed_context.h"
#include "ops/device.h"
#include "ops/int8_context.h"

namespace cepe::engine {
namespace {

using base::Error;
using base::ErrorCode;

constexpr int64_t most_blocks = int64_t{1} << 24;  // a billion rows
constexpr int64_t most_samples = int64_t{1} << 16;

// float32 weights mean that exactness is wanted; otherwise the cache is bfloat16, half the bytes to read a token.
at::ScalarType cache_type(const model::Decoder& decoder, CacheType wanted) {
  if (wanted == CacheType::int8) return at::kByte;
  const at::Tensor& weight = decoder.layers.front().attention.output.weight;
  return weight.defined() && weight.scalar_type() == at::kFloat ? at::kFloat : at::kBFloat16;
}

bool steps_by_tables(const model::Decoder& decoder, const EngineOptions& options) {
  return !decoder.device().is_cpu() || options.steps_by_tables_on_cpu;
}

EngineOptions checked(EngineOptions options) {
  if (options.cache_rows < 0)
    throw Error(ErrorCode::invalid_argument, "a self-attention cache of " + std::to_string(options.cache_rows) +
                                                 " rows; it must be at least 1, or 0");
  if (options.kept_bytes < -1)
    throw Error(ErrorCode::invalid_argument, "a budget of " + std::to_string(options.kept_bytes) +
                                                 " bytes for kept K and V; it must be 0 or more, or -1");
  return options;
}

int64_t cache_blocks(const model::Decoder& decoder, const EngineOptions& options) {
  const model::DecoderConfig& config = decoder.config;
  int64_t rows = std::min(options.cache_rows, most_blocks * block_rows);
  if (rows == 0) {
    const int64_t bytes_a_row = model::cache_slot_bytes(config.layers, config.groups, config.head_width,
                                                        cache_type(decoder, options.cache_type));
    rows = std::max(ops::available_bytes(decoder.device()) / 4 / bytes_a_row, config.max_positions);
  }
  const int64_t padding = steps_by_tables(decoder, options) ? 1 : 0;
  return std::clamp<int64_t>((rows + block_rows - 1) / block_rows, 1, most_blocks) + padding;
}

std::string too_large_to_keep(int64_t rows, int64_t bytes) {
  return "K and V of a context of " + std::to_string(rows) + " tokens take " + base::human_bytes(bytes) +
         ", for which there is no memory";
}
[[noreturn]] void refuse_to_keep(int64_t rows, int64_t bytes) {
  throw Error(ErrorCode::out_of_memory,
              too_large_to_keep(rows, bytes) + "; give --cross-attention absorbed, which reads the states");
}

int64_t bytes_kept(const model::ContextStates& context) {
  int64_t sum = 0;
  for (const auto& kept : context.kept) sum += kept.bytes();
  return sum;
}

}  // namespace

Engine::Engine(const model::CepeModel& model, const text::Tokenizer& tokenizer, EngineOptions options)
    : model_(&model),
      tokenizer_(&tokenizer),
      options_(checked(std::move(options))),
      context_(std::make_shared<const model::ContextStates>()),
      hot_(model, options_.kept_type),
      pool_(cache_blocks(model.decoder, options_)),
      scheduler_({block_rows, options_.max_sequences, options_.prefill_rows, options_.batch_invariant,
                  steps_by_tables(model.decoder, options_) ? 1 : 0},
                 pool_),
      by_tables_(steps_by_tables(model.decoder, options_)) {
  if (options_.kept_type == KeptType::int8 && !model.decoder.device().is_cpu())
    throw Error(ErrorCode::invalid_argument, "K and V are kept in 8 bits on a CPU only, and the model is on " +
                                                 model.decoder.device().str() + "; give --kept-type auto");
  if (by_tables_) padding_block_ = pool_.take();
}

Engine::~Engine() = default;

// What K and V that are yet to be made may take.
int64_t Engine::kept_budget() const {
  if (options_.batch_invariant)
    return options_.kept_bytes >= 0 ? options_.kept_bytes : std::numeric_limits<int64_t>::max();
  if (options_.kept_bytes >= 0) return options_.kept_bytes - kept_.bytes();
  return ops::available_bytes(model_->decoder.device()) / 5 * 2;
}

ContextPointer Engine::registered(model::ContextStates context) const {
  auto shared = std::make_shared<const model::ContextStates>(std::move(context));
  kept_.add(shared);
  return shared;
}

// Held, no other thread is between steps, and none begins one. Errors: invalid_argument where one is in a step.
std::unique_lock<std::mutex> Engine::outside_steps() const {
  std::unique_lock lock(between_steps_);
  const std::thread::id thread = stepping_.load();
  if (thread != std::thread::id() && thread != std::this_thread::get_id())
    throw Error(ErrorCode::invalid_argument,
                "the engine is called while another thread is in its step() or generate(): one thread at a time may "
                "call it, but for submit() and cancel()");
  return lock;
}

void Engine::set_context(model::ContextStates context) {
  const auto outside = outside_steps();
  const auto set = [&](ContextPointer next) {
    const std::lock_guard lock(mutex_);
    context_.swap(next);
  };
  set(std::make_shared<const model::ContextStates>());
  set(plainly([&] { return prepared(std::move(context)); }));
}

ContextPointer Engine::prepare(model::ContextStates context) const {
  const auto outside = outside_steps();
  return plainly([&] { return prepared(std::move(context)); });
}

ContextPointer Engine::prepared(model::ContextStates context) const {
  const at::NoGradGuard none;
  hot_.drop_expired();
  check_context(*model_, context);
  if (context.rows == 0) return std::make_shared<const model::ContextStates>(std::move(context));
  const model::DecoderConfig& config = model_->decoder.config;
  const KeptForm form = kept_form(*model_, context, options_.kept_type);
  const auto cost = model::cost_of(context, 1, model::head_shape(config));
  const bool wanted =
      options_.path == model::CrossAttentionPath::kept ||
      (options_.path == model::CrossAttentionPath::automatic && model::worth_keeping(cost, form.bytes, kept_budget()));
  if (wanted && !keep_what_fits(*model_, context, form, options_.projections.get())) {
    if (options_.path == model::CrossAttentionPath::kept || options_.batch_invariant)
      refuse_to_keep(context.rows, form.bytes);
    base::warn(too_large_to_keep(context.rows, form.bytes) + ": the encoded states are read instead");
  }
  if (context.kept.empty() && cost.cpu) context = model::dense_pages(std::move(context));
  return registered(std::move(context));
}

// K and V of `added` behind those of `joined`.
void Engine::extend_kept(model::ContextStates& joined, model::ContextStates& added) const {
  model::keep_projections(added, model::cross_attention_blocks(*model_), model::head_shape(model_->decoder.config),
                          joined.kept.front().type());
  for (size_t i = 0; i < joined.kept.size(); ++i) {
    model::ContextStates::Projected& kept = joined.kept[i];
    if (kept.in_8_bits) {
      ops::Int8Context both = *kept.in_8_bits;
      both.append(*added.kept[i].in_8_bits);
      kept.in_8_bits = std::make_shared<const ops::Int8Context>(std::move(both));
    } else {
      kept = {at::cat({kept.keys, added.kept[i].keys}, 0), at::cat({kept.values, added.kept[i].values}, 0)};
    }
  }
}

// Whether the budget has room for a context's K and V when they take `after` bytes.
bool Engine::may_grow(const ContextPointer& context, int64_t after) const {
  if (options_.kept_bytes < 0 || options_.batch_invariant) return after <= kept_budget();
  // Of 8 bits only what is added is made; others are copied, and those before go where nobody else has them.
  const bool makes_room = context->kept.front().in_8_bits || context.use_count() == 1;
  return after - (makes_room ? bytes_kept(*context) : 0) <= kept_budget();
}

// The pages of both, and where K and V are kept and the budget and the memory allow it, K and V of both.
ContextPointer Engine::extended(const ContextPointer& context, model::ContextStates added) const {
  if (context->rows == 0) return prepared(std::move(added));
  model::ContextStates joined = *context;
  const bool must_keep = options_.path == model::CrossAttentionPath::kept;
  const int64_t rows = joined.rows + added.rows, bytes = bytes_kept(joined) / joined.rows * rows;
  if (!must_keep && !joined.kept.empty() && !may_grow(context, bytes)) joined.kept.clear();
  if (!joined.kept.empty()) {
    try {
      extend_kept(joined, added);
    } catch (const std::exception& error) {
      if (!ops::is_out_of_memory(error)) throw;
      if (must_keep || options_.batch_invariant) refuse_to_keep(rows, bytes);
      joined.kept.clear();
      added.kept.clear();
    }
  }
  if (joined.kept.empty() && model_->decoder.device().is_cpu()) {
    joined = model::dense_pages(std::move(joined));
    added = model::dense_pages(std::move(added));
  }
  for (const at::Tensor& page : added.pages) joined.append(page);
  return registered(std::move(joined));
}

int64_t Engine::window_of(const Request& request) const {
  const int64_t positions = model_->decoder.config.max_positions;
  return request.endless.store && request.endless.window > 0 ? std::min(request.endless.window, positions) : positions;
}

// Rows of the cache that one of its answers may come to need.
int64_t Engine::rows_of(const Request& request) const {
  const int64_t window = window_of(request);
  return std::min(window, static_cast<int64_t>(request.prompt.size()) + std::min(request.max_tokens, window));
}

void Engine::check(const Request& request) const {
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  const int64_t window = window_of(request);
  if (prompt == 0) throw Error(ErrorCode::invalid_argument, "the prompt is empty: there is nothing to continue");
  if (prompt > window && !request.endless.store) {
    throw Error(ErrorCode::invalid_argument, "the prompt has " + std::to_string(prompt) +
                                                 " tokens; the decoder reads at most " + std::to_string(window));
  }
  check_ids(request.prompt, model_->decoder.config.vocabulary);
  if (request.context) check_context(*model_, *request.context);
  if (request.samples < 1 || request.samples > most_samples)
    throw Error(ErrorCode::invalid_argument, std::to_string(request.samples) + " answers asked for; it must be 1 to " +
                                                 std::to_string(most_samples));
  if (request.endless.keep_first < 0)
    throw Error(ErrorCode::invalid_argument,
                "the first " + std::to_string(request.endless.keep_first) + " tokens of a window cannot be kept");
  if (request.endless.store && !model_->adapter)
    throw Error(ErrorCode::invalid_argument,
                "a conversation without end needs an adapter: what leaves the decoder's window goes to the encoder");
  if (request.endless.store && window - std::min(request.endless.keep_first, window) < 2)
    throw Error(ErrorCode::invalid_argument, "a window of " + std::to_string(window) + " tokens that keeps its first " +
                                                 std::to_string(request.endless.keep_first) + " cannot slide");
  validate(request.sampling, model_->decoder.config.vocabulary);
}

void Engine::require_room(const Request& request) const {
  if (scheduler_.fits(rows_of(request))) return;
  throw Error(ErrorCode::out_of_memory, "the request needs a self-attention cache of " +
                                            std::to_string(rows_of(request)) + " rows (its prompt and at most " +
                                            std::to_string(request.max_tokens) + " tokens); there are " +
                                            std::to_string(scheduler_.blocks() * block_rows) +
                                            " in all: ask for fewer tokens or give the cache more");
}

RequestId Engine::submit(Request request) { return enter(std::move(request))->id; }

std::shared_ptr<Job> Engine::enter(Request request) {
  check(request);
  // Not the job's: an answer whose window slid leaves it, and so does one whose K and V were made.
  ContextPointer context = std::move(request.context);
  auto job = std::make_shared<Job>();
  job->request = std::move(request);
  const Request& its = job->request;
  auto first = std::make_unique<Sequence>(job, 0, std::move(context), *tokenizer_);
  first->forks = its.samples - 1;
  if (its.max_tokens <= 0) first->finish = Finish::length;
  const std::lock_guard lock(mutex_);
  require_room(its);
  if (!first->context) first->context = context_;
  job->id = next_request_++;
  open_.emplace(job->id, job);
  arrived_.push_back(std::move(first));
  return job;
}

bool Engine::cancel(RequestId id) {
  const std::lock_guard lock(mutex_);
  const auto found = open_.find(id);
  if (found == open_.end()) return false;
  found->second->cancelled = true;
  return true;
}

// One of its answers is no longer among the sequences.
void Engine::leave(Job& job) {
  if (--job.answers > 0) return;
  const std::lock_guard lock(mutex_);
  open_.erase(job.id);
}

// Nobody is told: whoever asked is gone.
void Engine::discard(RequestId id) {
  const auto is_its = [&](const Sequence& sequence) { return sequence.job->id == id; };
  std::erase_if(sequences_, [&](const auto& entry) {
    if (!is_its(*entry.second)) return false;
    scheduler_.remove(entry.second->rows);
    return true;
  });
  std::shared_ptr<Job> job;  // ends when the mutex is free: what its callbacks hold may call the engine
  const std::lock_guard lock(mutex_);
  std::erase_if(arrived_, [&](const auto& sequence) { return is_its(*sequence); });
  const auto found = open_.find(id);
  if (found == open_.end()) return;
  job = std::move(found->second);
  open_.erase(found);
}

std::vector<Completion> Engine::generate_samples(Request request) {
  const Stepping stepping(stepping_, between_steps_);
  check(request);
  std::vector<Completion> found(static_cast<size_t>(request.samples));
  size_t done = 0;
  request.on_finish = [&found, &done, also = std::move(request.on_finish)](const Completion& completion) {
    found.at(static_cast<size_t>(completion.sample)) = completion;
    ++done;
    if (also) also(completion);
  };
  const std::shared_ptr<Job> job = enter(std::move(request));
  try {
    while (done < found.size()) {
      base::throw_if_interrupted();
      std::exception_ptr of_any;
      step_once(of_any);
      if (job->failure) std::rethrow_exception(job->failure);
    }
  } catch (...) {
    discard(job->id);  // its callbacks refer to this frame
    throw;
  }
  return found;
}

Completion Engine::generate(const Request& request) {
  Request one = request;
  one.samples = 1;
  return std::move(generate_samples(std::move(one)).front());
}

EngineCounters Engine::counters() const {
  const auto outside = outside_steps();
  hot_.drop_expired();
  EngineCounters counters = counters_;
  counters.preemptions = scheduler_.preemptions();
  counters.kept_bytes = kept_.bytes();
  for (const auto* tensors : {&cache_.keys, &cache_.values})
    for (const at::Tensor& tensor : *tensors) counters.cache_bytes += static_cast<int64_t>(tensor.nbytes());
  return counters;
}

model::KvCache Engine::make_cache(int64_t slots) const {
  const model::Decoder& decoder = model_->decoder;
  return model::make_kv_cache(decoder.config.layers, slots, decoder.config.groups, decoder.config.head_width,
                              at::TensorOptions(decoder.device()).dtype(cache_type(decoder, options_.cache_type)));
}

model::CrossAttentionInput Engine::cross(std::vector<const model::ContextStates*> contexts) const {
  const bool any = std::any_of(contexts.begin(), contexts.end(), [](const auto* context) { return context->rows > 0; });
  if (!any) return {};
  return {model::cross_attention_blocks(*model_), std::move(contexts), options_.path};
}

}  // namespace cepe::engine
