#include "train/team.h"

namespace cepe::train {

Team::Team(size_t members) : errors_(members) {
  if (members < 2) return;
  for (size_t member = 0; member < members; ++member) threads_.emplace_back([this, member] { serve(member); });
}

Team::~Team() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  begins_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Team::run(const std::function<void(size_t)>& work) {
  if (threads_.empty()) {
    work(0);
    return;
  }
  std::unique_lock lock(mutex_);
  work_ = &work;
  working_ = threads_.size();
  ++round_;
  begins_.notify_all();
  ends_.wait(lock, [this] { return working_ == 0; });
  std::exception_ptr first;
  for (std::exception_ptr& error : errors_) {
    if (error && !first) first = error;
    error = nullptr;
  }
  if (first) std::rethrow_exception(first);
}

void Team::serve(size_t member) {
  size_t done = 0;
  std::unique_lock lock(mutex_);
  while (true) {
    begins_.wait(lock, [&] { return closing_ || round_ > done; });
    if (closing_) return;
    done = round_;
    const std::function<void(size_t)>& work = *work_;
    lock.unlock();
    std::exception_ptr error;
    try {
      work(member);
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    errors_[member] = error;
    if (--working_ == 0) ends_.notify_one();
  }
}

}  // namespace cepe::train
