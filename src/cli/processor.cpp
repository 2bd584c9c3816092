#include "cli/processor.h"

namespace cepe::cli {

ProcessorFeatures processor_features() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return {true, __builtin_cpu_supports("avx2") != 0, __builtin_cpu_supports("fma") != 0};
#else
  return {};
#endif
}

std::string missing_processor_feature(const ProcessorFeatures& features) {
  if (!features.known || (features.avx2 && features.fma)) return "";
  const std::string name = !features.avx2 ? "AVX2" : "FMA";
  return "this processor lacks " + name +
         ", which cepe needs (Intel since 2013, AMD since 2015; a virtual machine may hide it: give it the host's "
         "processor type)";
}

}  // namespace cepe::cli
