// Progress of long work on standard error: a bar with rate and time left on a terminal, a plain line every
// few seconds elsewhere, nothing when quiet.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace cepe::base {

// "12 windows/s", below 10 with a decimal, below 1 with two digits that are not zero: never 0 where something was done.
std::string human_rate(double per_second, const std::string& unit);

class Progress {
 public:
  // total in `unit`s; 0 where it is not known.
  Progress(std::string what, int64_t total, std::string unit);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void advance(int64_t amount);
  int64_t done() const { return done_; }
  // Seconds since construction.
  double seconds() const;

 private:
  void print(bool last);

  std::string what_;
  std::string unit_;
  int64_t total_;
  int64_t done_ = 0;
  bool terminal_;
  bool shown_ = false;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point last_print_;
};

}  // namespace cepe::base
