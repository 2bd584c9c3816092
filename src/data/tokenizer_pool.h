// Texts in, token ids out in the same order, by several threads.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "text/tokenizer.h"

namespace cepe::data {

class TokenizerPool {
 public:
  // The tokenizer must outlive it. threads: at least 1.
  TokenizerPool(const text::Tokenizer& tokenizer, int threads);
  ~TokenizerPool();  // ends after the texts that are being worked on
  TokenizerPool(const TokenizerPool&) = delete;
  TokenizerPool& operator=(const TokenizerPool&) = delete;

  void submit(std::string text);
  // The ids of the oldest text that was not taken yet; nothing where there is none, or where it is not ready and `wait`
  // is false. Throws what the tokenizer threw; base::Interrupted.
  std::optional<std::vector<text::Token>> take(bool wait);

  size_t texts() const { return jobs_.size(); }  // submitted and not taken
  size_t bytes() const { return bytes_; }        // of these

 private:
  struct Job;
  void work();

  const text::Tokenizer& tokenizer_;
  std::mutex mutex_;
  std::condition_variable submitted_, finished_;
  std::deque<std::shared_ptr<Job>> waiting_;  // not begun
  std::deque<std::shared_ptr<Job>> jobs_;     // not taken; the caller's thread only
  size_t bytes_ = 0;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace cepe::data
