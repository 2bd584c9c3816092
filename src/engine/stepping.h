// Who is in a step.
#pragma once

#include <atomic>
#include <mutex>
#include <thread>

#include "base/error.h"

namespace cepe::engine {

// The thread of a step, or of several, while it lasts. A second step within it would end sequences that the first still
// reads. Errors: invalid_argument where there is one. `between_steps`: held by whoever was let in before; it waits
// for them.
class Stepping {
 public:
  Stepping(std::atomic<std::thread::id>& thread, std::mutex& between_steps) : thread_(thread) {
    std::thread::id before;
    if (thread_.compare_exchange_strong(before, std::this_thread::get_id())) {
      const std::lock_guard ended(between_steps);
      return;
    }
    throw base::Error(base::ErrorCode::invalid_argument,
                      before == std::this_thread::get_id()
                          ? "a callback called step() or generate() of its engine: submit the request there, and the "
                            "steps that follow answer it"
                          : "two threads are in step() or generate() of one engine: one thread at a time may call it; "
                            "the others submit their requests");
  }
  ~Stepping() { thread_.store({}); }
  Stepping(const Stepping&) = delete;
  Stepping& operator=(const Stepping&) = delete;

 private:
  std::atomic<std::thread::id>& thread_;
};

}  // namespace cepe::engine
