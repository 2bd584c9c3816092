// ContextStore: encoder states of chunks, computed once. Asked for chunks, it returns what it has and encodes what is
// missing. This one keeps them on disk under the cache folder, by content; the tiers above it come behind the same
// interface.
#pragma once

#include <memory>
#include <optional>
#include <span>

#include "base/files.h"
#include "context/chunk.h"
#include "model/cepe_model.h"

namespace cepe::context {

struct StoreOptions {
  base::Path folder;                     // made with mode 0700; empty = nothing is kept on disk
  int64_t max_bytes = int64_t{8} << 30;  // oldest used go first
  int64_t chunks_per_batch = 16;         // chunks encoded in one forward pass
};

// Of chunks asked for. One that a request names twice is encoded once and found once.
struct StoreCounters {
  int64_t found = 0, encoded = 0;  // chunks
  int64_t found_tokens = 0, encoded_tokens = 0;
  double encode_seconds = 0, read_seconds = 0;  // encoding: until the device is done
};

class ContextStore {
 public:
  // The encoder must outlive the store and stay as it is. Errors: invalid_argument for options out of range. A folder
  // that cannot be written is said once (warning) and then not used.
  ContextStore(const model::Adapter& adapter, StoreOptions options);
  ~ContextStore();

  // States of all chunks in order, one page each, rounded to the stored type (bfloat16; float32 where the encoder runs
  // in float32) BEFORE their first use, so that the first and the second answer agree. Shows progress of what must be
  // encoded; what was encoded before an interrupt is kept (throws base::Interrupted). A corrupt or short record is
  // dropped, logged, encoded again. One thread at a time. Errors: invalid_argument for an empty chunk or an id outside
  // the encoder's vocabulary, naming the document.
  model::ContextStates get_or_encode(std::span<const Chunk> chunks);

  const StoreCounters& counters() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Type of the states that a store hands out.
at::ScalarType stored_type(const model::Encoder& encoder);

// Fingerprint of everything that decides the states: encoder weights (embedding included), its configuration, the
// arithmetic (packed, bfloat16, float32), format version.
base::Digest encoder_fingerprint(const model::Encoder& encoder);

struct StoreUsage {
  int64_t chunks = 0, bytes = 0;
};
StoreUsage store_usage(const base::Path& folder);
// Removes every kept chunk and nothing else. Returns what was removed.
StoreUsage clear_store(const base::Path& folder);

}  // namespace cepe::context
