#include "base/memory.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>

namespace cepe::base {
namespace {

// The number behind `name` in a file of lines that begin with a name.
int64_t number_behind(const std::string& name, const std::string& path) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string first;
    int64_t value = 0;
    if (words >> first >> value && first == name) return value;
  }
  return 0;
}

int64_t number_in(const std::string& path) {
  std::ifstream file(path);
  int64_t value = 0;
  return file >> value ? value : 0;  // "max" reads as 0
}

// Of a control group, what cannot be taken back from it: files that were read lately are counted as its memory, and
// given up when it asks for more.
int64_t held_bytes(const std::string& group) {
  const std::string statistics = group + "/memory.stat";
  return number_in(group + "/memory.current") - number_behind("active_file", statistics) -
         number_behind("inactive_file", statistics);
}

}  // namespace

int64_t peak_resident_bytes() { return number_behind("VmHWM:", "/proc/self/status") * 1024; }

int64_t available_bytes(const std::string& root) {
  const int64_t available = number_behind("MemAvailable:", root + "/proc/meminfo") * 1024;
  const std::string group = root + "/sys/fs/cgroup";
  const int64_t limit = number_in(group + "/memory.max");
  return limit > 0 ? std::min(available, std::max<int64_t>(0, limit - held_bytes(group))) : available;
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
