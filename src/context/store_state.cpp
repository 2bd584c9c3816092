#include "context/store_state.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/memory.h"
#include "base/progress.h"
#include "model/packed_context.h"
#include "ops/device.h"

namespace cepe::context {
namespace {

using base::ErrorCode;

constexpr int64_t bytes_per_sync = int64_t{64} << 20;
constexpr size_t chunks_read_together = 32;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

bool is_dense_float32(const model::Linear& linear) {
  return !linear.packed && linear.weight.defined() && linear.weight.scalar_type() == at::kFloat;
}

void check_chunk(const Chunk& chunk, int64_t vocabulary, int64_t chunk_size) {
  const std::string document = "document " + std::to_string(chunk.document);
  if (chunk.ids.empty()) throw base::Error(ErrorCode::invalid_argument, document + " has a chunk without tokens");
  if (static_cast<int64_t>(chunk.ids.size()) > chunk_size) {
    throw base::Error(ErrorCode::invalid_argument, document + " has a chunk of " + std::to_string(chunk.ids.size()) +
                                                       " tokens; the encoder reads chunks of at most " +
                                                       std::to_string(chunk_size) + ": cut the text with split()");
  }
  for (const text::Token id : chunk.ids) {
    if (id >= 0 && id < vocabulary) continue;
    throw base::Error(ErrorCode::invalid_argument, document + " has token " + std::to_string(id) +
                                                       "; the encoder's vocabulary goes from 0 to " +
                                                       std::to_string(vocabulary - 1));
  }
}

void check_options(const StoreOptions& options) {
  const auto fail = [](const std::string& what) { throw base::Error(ErrorCode::invalid_argument, what); };
  if (options.chunks_per_batch < 1) {
    fail(std::to_string(options.chunks_per_batch) + " chunks per batch; it must be at least 1");
  }
  for (const int64_t bytes : {options.host_bytes, options.device_bytes})
    if (bytes < 0) fail("a budget of " + std::to_string(bytes) + " bytes for encoded chunks in memory");
}

RecordShape::Type kept_type(const model::Encoder& encoder, StateType type) {
  if (type == StateType::int8) return RecordShape::Type::int8;
  const bool is_float = type == StateType::automatic && stored_type(encoder) == at::kFloat;
  return is_float ? RecordShape::Type::float32 : RecordShape::Type::bfloat16;
}

// [n, S] int64.
at::Tensor ids_of(const std::vector<FlightPointer>& batch) {
  at::Tensor ids =
      at::empty({static_cast<int64_t>(batch.size()), static_cast<int64_t>(batch[0]->ids.size())}, at::kLong);
  auto* place = ids.mutable_data_ptr<int64_t>();
  for (const FlightPointer& flight : batch) place = std::copy(flight->ids.begin(), flight->ids.end(), place);
  return ids;
}

}  // namespace

at::ScalarType stored_type(const model::Encoder& encoder) {
  if (encoder.activation_type != at::kFloat || !is_dense_float32(encoder.embedding)) return at::kBFloat16;
  const auto exact = [](const model::EncoderLayer& layer) {
    return is_dense_float32(layer.query_key_value) && is_dense_float32(layer.output) &&
           is_dense_float32(layer.feed_forward.gate_up) && is_dense_float32(layer.feed_forward.down);
  };
  return std::all_of(encoder.layers.begin(), encoder.layers.end(), exact) ? at::kFloat : at::kBFloat16;
}

ContextStore::State::State(const model::Adapter& adapter, StoreOptions chosen)
    : encoder(adapter.encoder),
      options((check_options(chosen), std::move(chosen))),
      device(encoder.norm.weight.device()),
      codec(kept_type(encoder, options.type), encoder.config.width, model::prefers_packed_pages(adapter)),
      vocabulary(encoder.embedding.out_features()),
      chunk_size(adapter.chunk_size),
      separate_host(!device.is_cpu() || (codec.is_packed() && codec.page_type() != at::kByte)),
      pages(separate_host ? options.device_bytes : options.host_bytes),
      host(options.host_bytes),
      queue(
          mutex, static_cast<size_t>(options.chunks_per_batch),
          [this](const std::vector<FlightPointer>& batch) { return encode(batch); },
          [this](const Flight& flight) { keep(flight); }) {
  if (encoder.config.vocabulary > 0) vocabulary = std::min(vocabulary, encoder.config.vocabulary);
  if (separate_host && options.device_bytes > 0) {
    try {
      arena.emplace(options.device_bytes, adapter.chunk_size, codec.page_width(), codec.page_type(), device);
    } catch (const std::exception& error) {
      if (!ops::is_out_of_memory(error)) throw;
      throw base::Error(ErrorCode::out_of_memory, "--device-cache: " + device.str() + " has no " +
                                                      base::human_bytes(options.device_bytes) +
                                                      " left for encoded chunks; give it less");
    }
  }
  if (!options.folder.empty()) {
    DiskTierOptions disk_options;
    disk_options.folder = options.folder;
    disk_options.max_bytes = options.max_bytes;
    disk.emplace(disk_options);
  }
  if (disk || options.remote) {
    fingerprint = encoder_fingerprint(encoder, options.type);
    writer.emplace(bytes_per_sync, [this](const std::vector<PendingRecord>& records) { write(records); });
  }
}

void ContextStore::State::check(std::span<const Chunk> chunks) const {
  for (const Chunk& chunk : chunks) check_chunk(chunk, vocabulary, chunk_size);
}

at::Tensor ContextStore::State::find(const ChunkKey& key, int64_t rows) {
  at::Tensor page = pages.find(key);
  if (page.defined() || !separate_host || host.budget() == 0) return page;
  const at::Tensor packed = host.find(key);
  if (!packed.defined()) return page;
  page = to_page(packed, rows);
  pages.put(key, page);
  return page;
}

// Asked before anything is encoded: what a CPU has no memory for ends the process hours later.
void ContextStore::State::require_memory(int64_t rows) const {
  const int64_t available = ops::available_bytes(device) + (arena ? options.device_bytes : 0);
  const int64_t bytes = rows * codec.page_width() * static_cast<int64_t>(at::elementSize(codec.page_type()));
  if (available <= 0 || bytes <= available) return;
  throw base::Error(ErrorCode::out_of_memory, "the encoded states of " + std::to_string(rows) +
                                                  " tokens of context take " + base::human_bytes(bytes) +
                                                  " of memory; " + base::human_bytes(available) +
                                                  " are available: give fewer or shorter documents");
}

void ContextStore::State::read(std::vector<FlightPointer>& missing) {
  if (disk) {
    const auto start = std::chrono::steady_clock::now();
    std::optional<base::Progress> progress;  // only where it takes long
    std::vector<FlightPointer> left;
    for (size_t first = 0; first < missing.size(); first += chunks_read_together) {
      base::throw_if_interrupted();
      const size_t end = std::min(first + chunks_read_together, missing.size());
      read_disk(std::span(missing).subspan(first, end - first), left);
      if (progress) progress->advance(static_cast<int64_t>(end - first));
      if (!progress && seconds_since(start) > 1)
        progress.emplace("reading kept chunks", static_cast<int64_t>(missing.size() - end), "chunks");
    }
    if (left.size() < missing.size()) writer->wake();
    missing = std::move(left);
    const std::scoped_lock lock(mutex);
    counters.read_seconds += seconds_since(start);
  }
  if (options.remote && !missing.empty()) read_remote(missing);
}

// With the mutex held. Of the arena where it has room or something to evict, else of the device at large.
at::Tensor ContextStore::State::new_page(int64_t rows) {
  if (arena) {
    at::Tensor page = arena->take(rows);
    while (!page.defined() && pages.evict_one()) page = arena->take(rows);
    if (page.defined()) return page;
  }
  return codec.empty_page(rows, device);
}

// With the mutex held.
at::Tensor ContextStore::State::to_page(const at::Tensor& packed, int64_t rows) {
  if (!separate_host) return packed;
  at::Tensor page = new_page(rows);
  page.copy_(codec.page_of(packed.to(device, /*non_blocking=*/true)));
  return page;
}

// With the mutex held.
void ContextStore::State::keep(const Flight& flight) {
  pages.put(flight.key, flight.states);
  pages.trim_when_grown();
}

std::vector<at::Tensor> ContextStore::State::encode(const std::vector<FlightPointer>& batch) {
  const at::NoGradGuard no_gradients;
  const auto start = std::chrono::steady_clock::now();
  const int64_t rows = rows_of(*batch[0]);
  const at::Tensor packed = codec.pack(model::forward(encoder, ids_of(batch).to(device)));  // [n, ...]
  const at::Tensor states = codec.page_of(packed);                                          // [n, S, ..]
  const at::Tensor on_host = keeps_packed() ? packed.cpu() : at::Tensor();
  ops::synchronise(device);  // others may use them on another stream
  std::vector<at::Tensor> landed;
  std::vector<PendingRecord> records;
  std::unique_lock lock(mutex);
  for (size_t i = 0; i < batch.size(); ++i) {
    const auto n = static_cast<int64_t>(i);
    at::Tensor page = new_page(rows);  // its own memory: one that is kept does not keep the whole batch
    page.copy_(states.select(0, n));
    landed.push_back(std::move(page));
    if (!on_host.defined()) continue;
    // Of the CPU's pages the one handed out serves; it is never written to again.
    const at::Tensor kept = separate_host ? on_host.select(0, n).clone() : landed.back();
    if (separate_host && host.budget() > 0) host.put(batch[i]->key, kept);
    records.push_back({batch[i]->key, codec.shape(rows), kept, batch[i]->source, batch[i]->keep_since, false});
  }
  host.trim_when_grown();
  counters.encoded += static_cast<int64_t>(batch.size());
  counters.encoded_tokens += static_cast<int64_t>(batch.size()) * rows;
  counters.encode_seconds += seconds_since(start);
  lock.unlock();
  if (writer && !records.empty()) writer->push(std::move(records));
  return landed;
}

// Those that the disk has not are added to `left`.
void ContextStore::State::read_disk(std::span<const FlightPointer> flights, std::vector<FlightPointer>& left) {
  std::vector<at::Tensor> found;  // made on this thread, which has the device whose transfers the memory is for
  for (const FlightPointer& flight : flights) found.push_back(codec.empty(rows_of(*flight), !device.is_cpu()));
  at::parallel_for(0, static_cast<int64_t>(flights.size()), 1, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      if (!disk->read(flights[i]->key, codec.shape(rows_of(*flights[i])), writable_bytes_of(found[i])))
        found[i].reset();
    }
  });
  const std::scoped_lock lock(mutex);
  for (size_t i = 0; i < flights.size(); ++i) {
    ++(found[i].defined() ? counters.disk.hits : counters.disk.misses);
    if (!found[i].defined()) {
      left.push_back(flights[i]);
      continue;
    }
    counters.disk.hit_bytes += static_cast<int64_t>(found[i].nbytes());
    land(flights[i], found[i]);
  }
}

// With the mutex held.
void ContextStore::State::land(const FlightPointer& flight, const at::Tensor& packed) {
  if (separate_host && host.budget() > 0) {
    host.put(flight->key, packed);
    host.trim_when_grown();
  }
  const at::Tensor page = to_page(packed, rows_of(*flight));
  ops::synchronise(device);
  queue.land(flight, page);
}

void ContextStore::State::read_remote(std::vector<FlightPointer>& missing) {
  std::vector<at::Tensor> packed;
  std::vector<RemoteTier::Wanted> wanted;
  for (const FlightPointer& flight : missing) {
    packed.push_back(codec.empty(rows_of(*flight), !device.is_cpu()));
    wanted.push_back({flight->key, codec.shape(rows_of(*flight)), writable_bytes_of(packed.back())});
  }
  const std::vector<bool> found = options.remote->read(wanted);
  std::vector<FlightPointer> left;
  std::vector<PendingRecord> records;
  {
    const std::scoped_lock lock(mutex);
    for (size_t i = 0; i < missing.size(); ++i) {
      ++(found[i] ? counters.remote.hits : counters.remote.misses);
      if (!found[i]) {
        left.push_back(missing[i]);
        continue;
      }
      counters.remote.hit_bytes += static_cast<int64_t>(packed[i].nbytes());
      land(missing[i], packed[i]);
      const Flight& flight = *missing[i];
      records.push_back({flight.key, wanted[i].shape, packed[i], flight.source, flight.keep_since, true});
    }
  }
  if (disk && !records.empty()) writer->push(std::move(records));
  missing = std::move(left);
}

// On the writer's thread. Without records: times of use, for which no answer waits.
void ContextStore::State::write(const std::vector<PendingRecord>& records) {
  if (records.empty()) {
    if (disk) disk->flush();
    return;
  }
  std::vector<DiskTier::Item> items;
  std::vector<RemoteTier::Item> remote_items;
  int64_t keep_since = records.front().keep_since;
  for (const PendingRecord& record : records) {
    items.push_back({record.key, record.shape, bytes_of(record.packed), record.source});
    if (!record.from_remote) remote_items.push_back({record.key, record.shape, bytes_of(record.packed)});
    keep_since = std::min(keep_since, record.keep_since);
  }
  {
    const std::scoped_lock lock(mutex);
    if (!starts.empty()) keep_since = std::min(keep_since, *starts.begin());
  }
  if (disk) disk->write(items, keep_since);
  if (options.remote && !remote_items.empty()) options.remote->write(remote_items);
}

}  // namespace cepe::context
