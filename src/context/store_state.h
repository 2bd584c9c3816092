// The inside of a ContextStore: how chunks move between its tiers. (context_store.cpp tells what a request does.)
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <set>

#include "context/context_store.h"
#include "context/encode_queue.h"
#include "context/page_arena.h"
#include "context/state_codec.h"
#include "context/write_behind.h"

namespace cepe::context {

// `mutex` guards the memory tiers, the flights, the counters and the starts.
struct ContextStore::State {
  const model::Encoder& encoder;
  StoreOptions options;
  at::Device device;
  StateCodec codec;
  int64_t vocabulary;
  int64_t chunk_size;  // of the adapter: most tokens of a chunk
  base::Digest fingerprint{};
  std::mutex mutex;
  StoreCounters counters;
  std::multiset<int64_t> starts;  // of running requests
  // On the CPU, where a chunk is handed out as it is kept, the first of these is the host tier, and there is no other.
  bool separate_host;
  MemoryTier pages;  // as they are handed out
  MemoryTier host;   // as they are kept
  std::optional<PageArena> arena;
  std::optional<DiskTier> disk;
  EncodeQueue queue;
  std::optional<WriteBehind> writer;  // last: it writes to the disk until it is gone

  State(const model::Adapter& adapter, StoreOptions chosen);
  ~State() { writer.reset(); }

  void check(std::span<const Chunk> chunks) const;
  // What memory has of it; undefined where it has nothing. With the mutex held.
  at::Tensor find(const ChunkKey& key, int64_t rows);
  // Errors: out_of_memory, with the figures, where the states of so many rows more cannot fit the device.
  void require_memory(int64_t rows) const;
  // Whatever disk and remote have of these; those that are left.
  void read(std::vector<FlightPointer>& missing);

  // Whether what is encoded is kept, where it was to be.
  bool keeps() {
    return !disk || options.remote || options.host_bytes > 0 || options.device_bytes > 0 || disk->keeps();
  }
  bool keeps_packed() const { return disk || options.remote || (separate_host && host.budget() > 0); }
  at::Tensor new_page(int64_t rows);
  at::Tensor to_page(const at::Tensor& packed, int64_t rows);
  void keep(const Flight& flight);
  std::vector<at::Tensor> encode(const std::vector<FlightPointer>& batch);
  void read_disk(std::span<const FlightPointer> flights, std::vector<FlightPointer>& left);
  void read_remote(std::vector<FlightPointer>& missing);
  void land(const FlightPointer& flight, const at::Tensor& packed);
  void write(const std::vector<PendingRecord>& records);
};

inline int64_t rows_of(const Flight& flight) { return static_cast<int64_t>(flight.ids.size()); }

}  // namespace cepe::context
