// ContextStore: encoder states of chunks, computed once. Asked for chunks, it looks in its tiers (the encoder's device,
// host memory, disk, perhaps a remote server), encodes what is missing and keeps it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/files.h"
#include "context/chunk.h"
#include "context/disk_tier.h"
#include "context/memory_tier.h"
#include "context/remote_tier.h"
#include "model/cepe_model.h"

namespace cepe::context {

// automatic: bfloat16, or float32 where the encoder runs in float32 throughout. int8: a scale a row, half the bytes in
// host memory, on disk and beyond, and in the pages handed out where these are read so (model::prefers_packed_pages).
enum class StateType { automatic, bfloat16, int8 };

struct StoreOptions {
  base::Path folder;                     // made with mode 0700; empty = nothing is kept on disk
  int64_t max_bytes = int64_t{8} << 30;  // of the disk; oldest used go first
  int64_t chunks_per_batch = 16;         // chunks encoded in one forward pass
  // Budgets in memory. What running requests hold is kept above them, shared by all that ask for it.
  int64_t host_bytes = 0;
  int64_t device_bytes = 0;  // taken at once; on the CPU, where states are handed out as they are kept, unused
  StateType type = StateType::automatic;
  // False: what was encoded is on the disk when get_or_encode returns. True: soon after, or once `flush` or the
  // destructor return.
  bool write_behind = false;
  std::shared_ptr<RemoteTier> remote;  // may be none
};

// Of chunks asked for. One that a request names twice is encoded once and found once.
struct StoreCounters {
  int64_t found = 0, encoded = 0;  // chunks
  int64_t found_tokens = 0, encoded_tokens = 0;
  double encode_seconds = 0, read_seconds = 0;  // encoding: until the device is done
  int64_t joined = 0;                           // of those found: another request was encoding or reading them
  TierCounters device, host, disk, remote;
};

class ContextStore {
 public:
  // The encoder must outlive the store and stay as it is. Errors: invalid_argument for options out of range. A folder
  // that cannot be written is read, if it can be; that nothing is kept there is said once (warning).
  ContextStore(const model::Adapter& adapter, StoreOptions options);
  ~ContextStore();

  // States of all chunks in order, one page each, rounded to the stored type BEFORE their first use, so that the first
  // and the second answer agree, with their keys. The pages are pinned as long as anybody holds their tensors. Shows
  // progress of what must be encoded; what was encoded before an interrupt is kept (throws base::Interrupted). A
  // corrupt or short record is dropped, logged, encoded again. `sources`: names of the documents that the chunks count,
  // for people who look into the store. Any thread at any time; chunks that several are missing are encoded once, in
  // common batches. Errors: invalid_argument for an empty chunk, one longer than the adapter's chunk_size or an id
  // outside the encoder's vocabulary, naming the document; out_of_memory, before anything is encoded, where the states
  // cannot fit the memory that is available.
  model::ContextStates get_or_encode(std::span<const Chunk> chunks, std::span<const std::string> sources = {});

  // The same without handing anything out: memory does not grow with the number of chunks. Of more than the disk may
  // hold the beginning is kept, as of one request. Where the disk keeps nothing (any more; it is full), nor anything
  // else does, it ends soon after the first chunks that are encoded in vain. How many were encoded. `use`, if there is
  // one, is given the states of so many at a time, in order.
  using Use = std::function<void(model::ContextStates)>;
  static constexpr size_t chunks_at_once = 128;
  int64_t encode_missing(std::span<const Chunk> chunks, std::span<const std::string> sources = {},
                         const Use& use = nullptr);

  // Until all that was encoded is on the disk.
  void flush();
  bool keeps_on_disk() const;    // false without a folder, or where it cannot be written
  bool only_reads_disk() const;  // it cannot be written, but read
  // Encoded chunks that are not on the disk because other processes held its catalogue all the time.
  int64_t left_out() const;
  StoreCounters counters() const;

 private:
  struct State;
  model::ContextStates request(std::span<const Chunk> chunks, std::span<const std::string> sources, int64_t start,
                               bool shows);
  std::unique_ptr<State> state_;
};

// Type of the states that a store hands out.
at::ScalarType stored_type(const model::Encoder& encoder);

// Fingerprint of everything that decides the states: encoder weights (embedding included), its configuration, the
// arithmetic (packed, bfloat16, float32), format version, the type in which they are kept.
base::Digest encoder_fingerprint(const model::Encoder& encoder, StateType type = StateType::automatic);

}  // namespace cepe::context
