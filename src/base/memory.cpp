#include "base/memory.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>

namespace cepe::base {
namespace {

// The number behind `name:` in a /proc file, whose unit is kB.
int64_t kilobytes(const char* path, const std::string& name) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    if (line.rfind(name + ":", 0) != 0) continue;
    return std::strtoll(line.c_str() + name.size() + 1, nullptr, 10) * 1024;
  }
  return 0;
}

int64_t number_in(const char* path) {
  std::ifstream file(path);
  int64_t value = 0;
  return file >> value ? value : 0;  // "max" reads as 0
}

}  // namespace

int64_t peak_resident_bytes() { return kilobytes("/proc/self/status", "VmHWM"); }

int64_t available_bytes() {
  int64_t available = kilobytes("/proc/meminfo", "MemAvailable");
  const int64_t limit = number_in("/sys/fs/cgroup/memory.max");
  if (limit > 0)
    available = std::min(available, std::max<int64_t>(0, limit - number_in("/sys/fs/cgroup/memory.current")));
  return available;
}

std::string human_bytes(int64_t bytes) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  int unit = 0;
  while (value >= 1024 && unit < 4) value /= 1024, ++unit;
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.2f %s", value, units[unit]);
  return text;
}

}  // namespace cepe::base
