// Memory of this process and this machine, in bytes (Linux /proc; 0 where it cannot be read).
#pragma once

#include <cstdint>
#include <string>

namespace cepe::base {

int64_t peak_resident_bytes();  // VmHWM
// MemAvailable, or where that is less what is left of the limit of a control group (of either version): this process's
// or one around it. `root`: the folder of /proc and /sys.
int64_t available_bytes(const std::string& root = "");
std::string human_bytes(int64_t bytes);  // "1.25 GiB"

}  // namespace cepe::base
