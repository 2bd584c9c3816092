// Threads that work on one step together, one a replica of the model.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace cepe::train {

// The threads stay, since LibTorch keeps handles and scratch memory for each thread and device. One member needs none:
// it works in the caller's thread.
class Team {
 public:
  explicit Team(size_t members);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  // work(0) to work(members - 1), all at once; returns when all are over. Rethrows the error of the first member that
  // had one.
  void run(const std::function<void(size_t)>& work);

 private:
  void serve(size_t member);

  std::mutex mutex_;
  std::condition_variable begins_, ends_;
  const std::function<void(size_t)>* work_ = nullptr;
  size_t round_ = 0;    // how many times run() was called
  size_t working_ = 0;  // members that are not over yet
  bool closing_ = false;
  std::vector<std::exception_ptr> errors_;
  std::vector<std::thread> threads_;
};

}  // namespace cepe::train
