// Finds the stop strings in text that arrives in pieces, holding back what may be the beginning of one.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace cepe::engine {

class StopStrings {
 public:
  explicit StopStrings(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  // The text that is now certain; `stopped` becomes true at the first stop string, which is left out.
  std::string put(const std::string& piece);
  std::string finish() { return std::exchange(held_, {}); }
  bool stopped = false;

 private:
  size_t overlap(const std::string& stop) const;
  std::vector<std::string> stops_;
  std::string held_;
};

}  // namespace cepe::engine
