#include "context/context_store.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "context/store_state.h"

namespace cepe::context {
namespace {

// What is used or written from here on is not evicted for what is asked for meanwhile.
struct Started {
  std::mutex& mutex;
  std::multiset<int64_t>& starts;
  int64_t time = wall_clock();

  Started(std::mutex& guard, std::multiset<int64_t>& running) : mutex(guard), starts(running) {
    const std::scoped_lock lock(mutex);
    starts.insert(time);
  }
  ~Started() {
    const std::scoped_lock lock(mutex);
    starts.erase(starts.find(time));
  }
  Started(const Started&) = delete;
  Started& operator=(const Started&) = delete;
};

// A request while it runs: whatever happens, it takes its leave.
struct Running {
  std::mutex& mutex;
  EncodeQueue& queue;
  std::vector<FlightPointer> own, joined;

  Running(std::mutex& guard, EncodeQueue& flights) : mutex(guard), queue(flights) {}
  ~Running() {
    const std::scoped_lock lock(mutex);
    for (const FlightPointer& flight : own) queue.leave(flight, true);
    for (const FlightPointer& flight : joined) queue.leave(flight, false);
  }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;
};

// What was encoded for a request is on the disk when it ends, in whatever way.
template <class State>
class WrittenAtTheEnd {
 public:
  explicit WrittenAtTheEnd(State& state) : state_(state) {}
  ~WrittenAtTheEnd() {
    if (state_.writer && !state_.options.write_behind) state_.writer->drain();
  }
  WrittenAtTheEnd(const WrittenAtTheEnd&) = delete;
  WrittenAtTheEnd& operator=(const WrittenAtTheEnd&) = delete;

 private:
  State& state_;
};

// A chunk of a request, once however often it is named.
struct Page {
  const Chunk* chunk;
  ChunkKey key;
  at::Tensor states;  // [S, E], once it is there
  FlightPointer flight;
};

struct Wanted {
  std::vector<Page> pages;
  std::vector<size_t> order;  // page of each chunk

  Wanted(std::span<const Chunk> chunks, const base::Digest& fingerprint) {
    std::map<ChunkKey, size_t> known;
    for (const Chunk& chunk : chunks) {
      const ChunkKey key = key_of(chunk.ids, fingerprint);
      const auto [place, is_new] = known.emplace(key, pages.size());
      if (is_new) pages.push_back({&chunk, key, {}, nullptr});
      order.push_back(place->second);
    }
  }
};

std::string source_of(const Chunk& chunk, std::span<const std::string> sources) {
  const auto document = static_cast<size_t>(chunk.document);
  return chunk.document >= 0 && document < sources.size() ? sources[document] : "";
}

int64_t rows_of(const std::vector<FlightPointer>& flights) {
  return std::accumulate(flights.begin(), flights.end(), int64_t{0},
                         [](int64_t rows, const FlightPointer& flight) { return rows + rows_of(*flight); });
}

// Tokens of encoding that are over, on a bar: of the flights up to the first that is not.
class Shown {
 public:
  explicit Shown(const std::vector<FlightPointer>& flights)
      : flights_(flights), progress_("encoding", rows_of(flights), "tokens") {}
  void update() {
    int64_t rows = 0;
    for (; next_ < flights_.size() && flights_[next_]->landed(); ++next_) rows += rows_of(*flights_[next_]);
    progress_.advance(rows);
  }

 private:
  const std::vector<FlightPointer>& flights_;
  base::Progress progress_;
  size_t next_ = 0;
};

}  // namespace

ContextStore::ContextStore(const model::Adapter& adapter, StoreOptions options)
    : state_(std::make_unique<State>(adapter, std::move(options))) {}
ContextStore::~ContextStore() = default;

model::ContextStates ContextStore::request(std::span<const Chunk> chunks, std::span<const std::string> sources,
                                           int64_t start, bool shows) {
  const at::NoGradGuard no_gradients;
  State& state = *state_;
  state.check(chunks);
  Wanted wanted(chunks, state.fingerprint);
  Running running(state.mutex, state.queue);
  {
    const std::scoped_lock lock(state.mutex);
    state.pages.trim();  // what earlier requests have let go of
    state.host.trim();   // and the writer
    int64_t rows = 0;    // that memory has nothing of
    for (Page& page : wanted.pages) {
      const auto its = static_cast<int64_t>(page.chunk->ids.size());
      page.states = state.find(page.key, its);
      rows += page.states.defined() ? 0 : its;
    }
    state.require_memory(rows);
    for (Page& page : wanted.pages) {
      if (page.states.defined()) continue;
      if ((page.flight = state.queue.join(page.key))) {
        running.joined.push_back(page.flight);
        continue;
      }
      Flight flight;
      flight.key = page.key;
      flight.ids = page.chunk->ids;
      flight.source = source_of(*page.chunk, sources);
      flight.keep_since = start;
      running.own.push_back(page.flight = state.queue.begin(std::move(flight)));
    }
  }
  std::vector<FlightPointer> missing = running.own;
  state.read(missing);
  {
    const std::scoped_lock lock(state.mutex);
    for (const FlightPointer& flight : missing) state.queue.enqueue(flight);
  }
  std::vector<FlightPointer> awaited = missing;
  awaited.insert(awaited.end(), running.joined.begin(), running.joined.end());
  std::optional<Shown> shown;
  if (shows && !awaited.empty()) shown.emplace(awaited);
  state.queue.wait_for(awaited, [&] {
    base::throw_if_interrupted();
    if (shown) shown->update();
  });

  model::ContextStates context;
  for (Page& page : wanted.pages)
    if (page.flight) page.states = page.flight->states;
  for (const size_t page : wanted.order) {
    context.append(wanted.pages[page].states);
    context.keys.push_back(wanted.pages[page].key);
  }
  const int64_t missing_tokens = rows_of(missing);
  const std::scoped_lock lock(state.mutex);
  state.counters.found += static_cast<int64_t>(chunks.size() - missing.size());
  state.counters.found_tokens += context.rows - missing_tokens;
  state.counters.joined += static_cast<int64_t>(running.joined.size());
  return context;
}

model::ContextStates ContextStore::get_or_encode(std::span<const Chunk> chunks, std::span<const std::string> sources) {
  const WrittenAtTheEnd written(*state_);
  const Started started(state_->mutex, state_->starts);
  return request(chunks, sources, started.time, true);
}

int64_t ContextStore::encode_missing(std::span<const Chunk> chunks, std::span<const std::string> sources,
                                     const Use& use) {
  const WrittenAtTheEnd written(*state_);
  const Started started(state_->mutex, state_->starts);
  const int64_t before = counters().encoded;
  int64_t tokens = 0;
  for (const Chunk& chunk : chunks) tokens += static_cast<int64_t>(chunk.ids.size());
  base::Progress progress("encoding", tokens, "tokens");
  for (size_t first = 0; first < chunks.size(); first += chunks_at_once) {
    const auto part = chunks.subspan(first, std::min(chunks_at_once, chunks.size() - first));
    model::ContextStates states = request(part, sources, started.time, false);
    const int64_t rows = states.rows;
    if (use) use(std::move(states));
    progress.advance(rows);
    if (!state_->keeps() && counters().encoded > before) break;
  }
  return counters().encoded - before;
}

void ContextStore::flush() {
  if (state_->writer) state_->writer->drain();
  if (state_->disk) state_->disk->flush();
}

bool ContextStore::keeps_on_disk() const { return state_->disk && state_->disk->keeps(); }

bool ContextStore::only_reads_disk() const { return state_->disk && state_->disk->only_reads(); }

int64_t ContextStore::left_out() const { return state_->disk ? state_->disk->left_out() : 0; }

StoreCounters ContextStore::counters() const {
  const std::scoped_lock lock(state_->mutex);
  StoreCounters counters = state_->counters;
  (state_->separate_host ? counters.device : counters.host) = state_->pages.counters();
  if (state_->separate_host) counters.host = state_->host.counters();
  return counters;
}

}  // namespace cepe::context
