// Single flight: a chunk is encoded once however many requests ask for it at the same time. Whoever has to wait for
// chunks encodes: one thread at a time takes a batch of what all of them miss, and the others sleep.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "context/state_codec.h"

namespace cepe::context {

// A chunk that somebody is looking for or encoding.
struct Flight {
  ChunkKey key{};
  std::vector<text::Token> ids;
  std::string source;
  int64_t keep_since = 0;
  at::Tensor states;         // once it has landed
  std::exception_ptr error;  // instead
  int requests = 0;          // that wait for it
  enum class Stage { sought, queued, encoding } stage = Stage::sought;
  bool landed() const { return states.defined() || error; }
};
using FlightPointer = std::shared_ptr<Flight>;

class EncodeQueue {
 public:
  // States of a batch of chunks of one length. Called without the mutex, one call at a time.
  using Encode = std::function<std::vector<at::Tensor>(const std::vector<FlightPointer>&)>;
  // Told, with the mutex held, of every flight that has landed with states, before others can begin it anew.
  using Keep = std::function<void(const Flight&)>;
  EncodeQueue(std::mutex& mutex, size_t most, Encode encode, Keep keep)
      : mutex_(mutex), most_(most), encode_(std::move(encode)), keep_(std::move(keep)) {}

  // To be called with the mutex held.
  FlightPointer join(const ChunkKey& key);  // of somebody else; nullptr where nobody looks for it
  FlightPointer begin(Flight flight);
  void land(const FlightPointer& flight, at::Tensor states);
  void enqueue(const FlightPointer& flight);
  // This request no longer waits. `own`: it has begun this flight; where it was not to be encoded yet and others wait,
  // it is from now on.
  void leave(const FlightPointer& flight, bool own);

  // Without the mutex: until all have landed, encoding what waits. Calls `progress` now and then, which may throw.
  // Errors: those of encoding.
  void wait_for(const std::vector<FlightPointer>& flights, const std::function<void()>& progress);

 private:
  std::vector<FlightPointer> take_batch();
  void encode_batch(std::unique_lock<std::mutex>& lock);

  std::mutex& mutex_;
  size_t most_;
  Encode encode_;
  Keep keep_;
  std::condition_variable changed_;
  std::map<ChunkKey, FlightPointer> flights_;
  std::deque<FlightPointer> queue_;
  bool encoding_ = false;
};

}  // namespace cepe::context
