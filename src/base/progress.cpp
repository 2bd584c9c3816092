#include "base/progress.h"

#include <unistd.h>

#include <cstdio>
#include <utility>

#include "base/log.h"

namespace cepe::base {

std::string human_rate(double per_second, const std::string& unit) {
  const char* format = per_second < 1 ? "%.2g" : per_second < 10 ? "%.1f" : "%.0f";
  char figure[32];
  std::snprintf(figure, sizeof figure, format, per_second);
  return figure + (" " + unit) + "/s";
}

Progress::Progress(std::string what, int64_t total, std::string unit)
    : what_(std::move(what)),
      unit_(std::move(unit)),
      total_(total),
      terminal_(isatty(STDERR_FILENO) != 0),
      start_(std::chrono::steady_clock::now()),
      last_print_(start_) {}

Progress::~Progress() {
  if (shown_) print(true);
}

double Progress::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

void Progress::advance(int64_t amount) {
  done_ += amount;
  const auto interval = terminal_ ? std::chrono::milliseconds(200) : std::chrono::milliseconds(5000);
  if (std::chrono::steady_clock::now() - last_print_ >= interval) print(false);
}

void Progress::print(bool last) {
  if (log_level() < LogLevel::notice) return;
  last_print_ = std::chrono::steady_clock::now();
  shown_ = true;
  const double elapsed = seconds();
  const double rate = elapsed > 0 ? static_cast<double>(done_) / elapsed : 0;
  char line[256];
  if (total_ > 0) {
    const double left = rate > 0 ? static_cast<double>(total_ - done_) / rate : 0;
    std::snprintf(line, sizeof line, "%s: %lld of %lld %s (%.0f %%), %s, %.0f s left", what_.c_str(),
                  static_cast<long long>(done_), static_cast<long long>(total_), unit_.c_str(),
                  100.0 * static_cast<double>(done_) / static_cast<double>(total_), human_rate(rate, unit_).c_str(),
                  left);
  } else {
    std::snprintf(line, sizeof line, "%s: %lld %s, %s", what_.c_str(), static_cast<long long>(done_), unit_.c_str(),
                  human_rate(rate, unit_).c_str());
  }
  if (terminal_) {
    std::fprintf(stderr, "\r\x1b[K%s", last ? "" : line);
  } else if (!last) {
    std::fprintf(stderr, "%s\n", line);
  }
  std::fflush(stderr);
}

}  // namespace cepe::base
