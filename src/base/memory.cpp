#include "base/memory.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <limits>
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

// A tree of control groups: the one of their second version, or the first version's for memory.
struct ControlGroups {
  const char *controller, *folder, *limit;
  // What a group holds and cannot give back, in its memory.stat. All that it holds (memory.current) would count files
  // that were read or written lately, and the kernel's tables of them, which are given up when it asks for more.
  const char *anonymous, *shared;
};
constexpr ControlGroups trees[] = {
    {"", "/sys/fs/cgroup", "/memory.max", "anon", "shmem"},
    {"memory", "/sys/fs/cgroup/memory", "/memory.limit_in_bytes", "total_rss", "total_shmem"}};

// This process's group, "/name/name" or "", from lines "number:controller,controller:/name/name".
std::string group_of_process(const std::string& controller, const std::string& root) {
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string group = line.substr(second + 1);
    if (controllers.find("," + controller + ",") == std::string::npos) continue;
    const bool is_seen = group.starts_with('/') && group.find("/..") == std::string::npos;
    return is_seen && group != "/" ? group : "";
  }
  return "";
}

// What is left of a group's limit. No group holds more than its limit, so figures that say so (read while they change,
// or of a limit that is written down and not kept) bound nothing.
int64_t left_of(const ControlGroups& tree, const std::string& group) {
  const std::string statistics = group + "/memory.stat";
  const int64_t held = number_behind(tree.anonymous, statistics) + number_behind(tree.shared, statistics);
  const int64_t left = number_in(group + tree.limit) - held;
  return left > 0 ? left : std::numeric_limits<int64_t>::max();
}

}  // namespace

int64_t peak_resident_bytes() { return number_behind("VmHWM:", "/proc/self/status") * 1024; }

int64_t available_bytes(const std::string& root) {
  int64_t available = number_behind("MemAvailable:", root + "/proc/meminfo") * 1024;
  for (const ControlGroups& tree : trees) {
    const std::string top = root + tree.folder;
    std::string group = top + group_of_process(tree.controller, root);
    for (; group.size() >= top.size(); group.resize(group.rfind('/')))
      available = std::min(available, left_of(tree, group));
  }
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
