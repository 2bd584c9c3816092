#include "data/tokenizer_pool.h"

#include <chrono>
#include <utility>

#include "base/interrupt.h"

namespace cepe::data {

struct TokenizerPool::Job {
  std::string text;
  size_t bytes = 0;
  std::vector<text::Token> ids;
  std::exception_ptr error;
  bool done = false;  // under the mutex, like what is read after it
};

TokenizerPool::TokenizerPool(const text::Tokenizer& tokenizer, int threads) : tokenizer_(tokenizer) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
}

TokenizerPool::~TokenizerPool() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  submitted_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void TokenizerPool::work() {
  while (true) {
    std::shared_ptr<Job> job;
    {
      std::unique_lock lock(mutex_);
      submitted_.wait(lock, [this] { return ending_ || !waiting_.empty(); });
      if (ending_) return;
      job = std::move(waiting_.front());
      waiting_.pop_front();
    }
    try {
      job->ids = tokenizer_.encode(job->text);
    } catch (...) {
      job->error = std::current_exception();
    }
    std::string().swap(job->text);
    {
      const std::lock_guard lock(mutex_);
      job->done = true;
    }
    finished_.notify_one();
  }
}

void TokenizerPool::submit(std::string text) {
  auto job = std::make_shared<Job>();
  job->bytes = text.size();
  job->text = std::move(text);
  bytes_ += job->bytes;
  jobs_.push_back(job);
  {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(job));
  }
  submitted_.notify_one();
}

std::optional<std::vector<text::Token>> TokenizerPool::take(bool wait) {
  if (jobs_.empty()) return std::nullopt;
  const std::shared_ptr<Job> job = jobs_.front();
  {
    std::unique_lock lock(mutex_);
    // A signal does not end the wait, so it looks up now and then.
    while (wait && !job->done) {
      finished_.wait_for(lock, std::chrono::milliseconds(100), [&] { return job->done; });
      base::throw_if_interrupted();
    }
    if (!job->done) return std::nullopt;
  }
  jobs_.pop_front();
  bytes_ -= job->bytes;
  if (job->error) std::rethrow_exception(job->error);
  return std::move(job->ids);
}

}  // namespace cepe::data
