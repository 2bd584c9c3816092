// What was encoded goes to the disk (and further) beside the encoding: a thread takes whatever waits, all of it at
// once, so that one sync serves many chunks.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "context/state_codec.h"

namespace cepe::context {

struct PendingRecord {
  ChunkKey key{};
  RecordShape shape;
  at::Tensor packed;  // in host memory
  std::string source;
  int64_t keep_since = 0;
  bool from_remote = false;
};

class WriteBehind {
 public:
  // Called on a thread of its own, with no more than about `most_bytes` at a time; with none after `wake`. It must not
  // throw.
  using Write = std::function<void(const std::vector<PendingRecord>&)>;
  WriteBehind(int64_t most_bytes, Write write);
  ~WriteBehind();  // after all is written
  WriteBehind(const WriteBehind&) = delete;
  WriteBehind& operator=(const WriteBehind&) = delete;

  // Waits while four times `most_bytes` wait already.
  void push(std::vector<PendingRecord> records);
  // Does not wait: where more than `most_waiting` bytes would, the oldest that wait are dropped, all of a request (one
  // `keep_since`) together, since they may share memory. How many records were; never of these.
  int64_t push_in_place_of_oldest(std::vector<PendingRecord> records, int64_t most_waiting);
  // Values of each that waits or is being written; undefined for the others, which `write` is done with, if they came.
  std::vector<at::Tensor> find(std::span<const ChunkKey> keys);
  // `write` is called with no records once none wait: for what need not be done before an answer.
  void wake();
  // Until all that was pushed is written, and nothing is left to wake for.
  void drain();

 private:
  void run();
  void start();
  void add(std::vector<PendingRecord> records);
  std::vector<PendingRecord> take_oldest();

  int64_t most_bytes_;
  Write write_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<PendingRecord> waiting_, taken_;  // to be written; by `write` just now
  int64_t waiting_bytes_ = 0;
  bool writing_ = false, woken_ = false, ended_ = false;
  std::thread thread_;
};

}  // namespace cepe::context
