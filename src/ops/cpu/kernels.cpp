#include "ops/cpu/kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <iterator>
#include <string>
#include <utility>

#include "base/log.h"

namespace cepe::ops::cpu {
namespace {

#if defined(__x86_64__)
enum class Register { eax, ebx, ecx, edx };

// What __builtin_cpu_supports has no name for in every compiler: a bit that the processor tells of itself.
bool has_bit(unsigned leaf, Register where, unsigned bit, unsigned subleaf = 0) {
  unsigned values[4] = {};
  return __get_cpuid_count(leaf, subleaf, &values[0], &values[1], &values[2], &values[3]) != 0 &&
         (values[static_cast<int>(where)] >> bit & 1u) != 0;
}
bool has_f16c() { return has_bit(1, Register::ecx, 29); }
bool has_avxvnni() { return has_bit(7, Register::eax, 4, 1); }
bool has_amx() {  // tiles, products of bfloat16, of int8
  return has_bit(7, Register::edx, 24) && has_bit(7, Register::edx, 22) && has_bit(7, Register::edx, 25);
}
#endif

bool has(Level level) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
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

constexpr std::pair<std::string_view, Level> levels[] = {  // the best first
    {"avx512", Level::avx512},
    {"avx2", Level::avx2},
    {"portable", Level::portable}};

std::string_view name_of(Level level) {
  return std::ranges::find(levels, level, &std::pair<std::string_view, Level>::second)->first;
}

std::atomic<Level>& chosen() {
  static std::atomic<Level> level = [] {
    const char* asked = std::getenv("CEPE_CPU_LEVEL");
    return level_asked_for(asked ? asked : "");
  }();
  return level;
}

#if defined(__x86_64__)
// Whether this processor has AMX for bfloat16 and int8 and the system lets this process use it.
bool has_matrix_unit() {
  static const bool found = [] {
    if (!has_amx()) return false;
    constexpr long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
  }();
  return found;
}
#endif

}  // namespace

Level level_asked_for(std::string_view name) {
  const Level best = std::ranges::find_if(levels, [](const auto& one) { return has(one.second); })->second;
  if (name.empty()) return best;
  const auto* const found = std::ranges::find(levels, name, &std::pair<std::string_view, Level>::first);
  if (found != std::end(levels) && has(found->second)) return found->second;
  base::warn("CEPE_CPU_LEVEL is '" + std::string(name) + "'" +
             (found == std::end(levels) ? "; it must be portable, avx2 or avx512" : ", which this processor lacks") +
             ": " + std::string(name_of(best)) + " is taken");
  return best;
}

Level level() { return chosen().load(std::memory_order_relaxed); }

bool choose_level(Level level) {
  if (!has(level)) return false;
  chosen().store(level, std::memory_order_relaxed);
  return true;
}

// Asked once: in a virtual machine a processor's answer about itself takes microseconds.
bool has_pair_instructions() {
#if defined(__x86_64__)
  static const bool found =
      has(Level::avx512) && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vbmi");
  return found;
#else
  return false;
#endif
}

PairKernel pair_kernel() {
#if defined(__x86_64__)
  if (level() == Level::avx512 && has_pair_instructions()) {
    if (has_matrix_unit()) return amx_pair_kernel();
    if (__builtin_cpu_is("amd")) return avx512bf16_pair_kernel();
  }
#endif
  return portable_pair_kernel();
}

PackedPairKernel packed_pair_kernel() {
#if defined(__x86_64__)
  if (level() == Level::avx512 && has_pair_instructions() && __builtin_cpu_is("amd"))
    return avx512bf16_packed_pair_kernel();
#endif
  return portable_packed_pair_kernel();
}

Int8Kernel int8_kernel() {
#if defined(__x86_64__)
  if (level() == Level::avx512 && has_pair_instructions() && has_matrix_unit()) return amx_int8_kernel();
#endif
  return portable_int8_kernel();
}

bool has_byte_products() {
#if defined(__x86_64__)
  static const bool found = has(Level::avx512) && __builtin_cpu_supports("avx512vnni");
  return found;
#else
  return false;
#endif
}

bool has_short_byte_products() {
#if defined(__x86_64__)
  static const bool found = has(Level::avx2) && has_avxvnni();
  return found;
#else
  return false;
#endif
}

Int8ContextKernel int8_context_kernel() {
#if defined(__x86_64__)
  if (level() == Level::avx512 && has_byte_products())
    return has_pair_instructions() && has_matrix_unit() ? amx_int8_context_kernel() : avx512vnni_int8_context_kernel();
  if (level() != Level::portable)
    return has_short_byte_products() ? avxvnni_int8_context_kernel() : avx2_int8_context_kernel();
#endif
  return portable_int8_context_kernel();
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
