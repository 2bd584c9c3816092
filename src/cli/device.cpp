#include "cli/device.h"

#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <dlfcn.h>

#include "base/error.h"

namespace cepe::cli {
namespace {

[[noreturn]] void no_gpu(const std::string& reason) {
  throw base::Error(base::ErrorCode::unsupported, "--device cuda: " + reason + "; use --device cpu");
}

}  // namespace

ProcessorFeatures processor_features() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return {true, __builtin_cpu_supports("avx2") != 0, __builtin_cpu_supports("fma") != 0,
          __builtin_cpu_supports("f16c") != 0};
#else
  return {};
#endif
}

std::string missing_processor_feature(const ProcessorFeatures& features) {
  if (!features.known || (features.avx2 && features.fma && features.f16c)) return "";
  const std::string name = !features.avx2 ? "AVX2" : !features.fma ? "FMA" : "F16C";
  return "this processor lacks " + name +
         ", which cepe needs (Intel since 2013, AMD since 2015; a virtual machine may "
         "hide it: give it the host's processor type)";
}

at::Device open_device(const std::string& name) {
  if (name == "cpu") return at::kCPU;
  // By its base name: found where the program's own LibTorch is. Its constructors register the CUDA functions.
  if (!dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL)) {
    const char* problem = dlerror();
    no_gpu(std::string("LibTorch's CUDA libraries are not installed or do not load (") + (problem ? problem : "?") +
           ")");
  }
  if (!at::detail::getCUDAHooks().hasCUDA() || at::detail::getCUDAHooks().deviceCount() < 1)
    no_gpu("no NVIDIA GPU was found, or its driver is too old for CUDA 13 (580 or newer; see nvidia-smi)");
  return {at::kCUDA, 0};
}

}  // namespace cepe::cli
