#include "base/log.h"

#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <string>

#include "base/printable.h"

namespace cepe::base {
namespace {
std::atomic<LogLevel> threshold{LogLevel::notice};
}

void set_log_level(LogLevel level) { threshold = level; }
LogLevel log_level() { return threshold; }

void log(LogLevel level, std::string_view message) {
  if (level > threshold) return;
  std::string line;
  // A progress line may stand on the terminal: start over it.
  if (isatty(STDERR_FILENO)) line += "\r\x1b[K";
  if (level == LogLevel::error) line += "error: ";
  if (level == LogLevel::warning) line += "warning: ";
  line.append(printable_lines(message)).push_back('\n');
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace cepe::base
