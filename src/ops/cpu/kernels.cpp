#include "ops/cpu/kernels.h"

#include <atomic>
#include <cstdlib>
#include <string_view>

namespace cepe::ops::cpu {
namespace {

bool has(Level level) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  switch (level) {
    case Level::portable:
      return true;
    case Level::avx2:
      return avx2;
    case Level::avx512:
      return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  }
  return false;
#else
  return level == Level::portable;
#endif
}

Level first_choice() {
  const char* asked = std::getenv("CEPE_CPU_LEVEL");
  const std::string_view name = asked ? asked : "";
  if (name == "portable") return Level::portable;
  if (name != "avx2" && has(Level::avx512)) return Level::avx512;
  return has(Level::avx2) ? Level::avx2 : Level::portable;
}

std::atomic<Level>& chosen() {
  static std::atomic<Level> level = first_choice();
  return level;
}

}  // namespace

Level level() { return chosen().load(std::memory_order_relaxed); }

bool choose_level(Level level) {
  if (!has(level)) return false;
  chosen().store(level, std::memory_order_relaxed);
  return true;
}

const Kernels& kernels() {
#if defined(__x86_64__)
  switch (level()) {
    case Level::portable:
      return portable_kernels();
    case Level::avx2:
      return avx2_kernels();
    case Level::avx512:
      return avx512_kernels();
  }
#endif
  return portable_kernels();
}

}  // namespace cepe::ops::cpu
