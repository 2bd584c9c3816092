#include "engine/stop_strings.h"

#include <algorithm>

namespace cepe::engine {

std::string StopStrings::put(const std::string& piece) {
  held_ += piece;
  size_t first = std::string::npos;
  for (const std::string& stop : stops_) {
    if (!stop.empty()) first = std::min(first, held_.find(stop));
  }
  if (first != std::string::npos) {
    stopped = true;
    held_.resize(first);
    return finish();
  }
  size_t keep = 0;
  for (const std::string& stop : stops_) keep = std::max(keep, overlap(stop));
  std::string certain = held_.substr(0, held_.size() - keep);
  held_.erase(0, certain.size());
  return certain;
}

// Length of the longest end of the held text that begins `stop`.
size_t StopStrings::overlap(const std::string& stop) const {
  for (size_t length = std::min(held_.size(), stop.empty() ? 0 : stop.size() - 1); length > 0; --length) {
    if (held_.compare(held_.size() - length, length, stop, 0, length) == 0) return length;
  }
  return 0;
}

}  // namespace cepe::engine
