#include "ops/device.h"

#include <ATen/Context.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/util/Exception.h>
#include <dlfcn.h>

#include <array>
#include <atomic>
#include <charconv>
#include <filesystem>
#include <mutex>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "ops/cuda/kernels.h"
#include "ops/cuda/loaded.h"

namespace cepe::ops {
namespace {

using base::Error;
using base::ErrorCode;
using std::filesystem::path;

constexpr const char* library_name = "libcepe_cuda.so";

struct CudaLibrary {
  decltype(&cuda::cepe_cuda_driver_state) driver_state = nullptr;
  decltype(&cuda::cepe_cuda_capability) capability = nullptr;
  decltype(&cuda::cepe_cuda_kernels) kernels = nullptr;
};

constexpr int most_that_libtorch_counts = 127;

struct OpenDevices {
  std::mutex mutex;
  CudaLibrary library;
  bool any_without_kernels = false;
  std::atomic<const cuda::CudaKernels*> kernels = nullptr;
  std::atomic<bool> any = false;
  std::array<std::atomic<int>, most_that_libtorch_counts + 1> capabilities = {};
};
OpenDevices& open_devices() {
  static OpenDevices devices;
  return devices;
}

// Where the loader looks for the program's own libraries, its run path first of all: a program that links cepe::cepe
// has the installed lib/ there.
void append_run_path(std::vector<path>& folders) {
  void* program = dlopen(nullptr, RTLD_LAZY);
  Dl_serinfo size = {};
  if (!program || dlinfo(program, RTLD_DI_SERINFOSIZE, &size) != 0) return;
  // Storage of pointers' alignment: dls_size counts the list and the names behind it.
  std::vector<void*> storage(size.dls_size / sizeof(void*) + 1);
  auto* list = reinterpret_cast<Dl_serinfo*>(storage.data());
  list->dls_size = size.dls_size;
  list->dls_cnt = size.dls_cnt;
  if (dlinfo(program, RTLD_DI_SERINFO, list) == 0) {
    const Dl_serpath* places = list->dls_serpath;
    for (unsigned i = 0; i < list->dls_cnt; ++i) folders.emplace_back(places[i].dls_name);
  }
  dlclose(program);
}

// The folders of the shared library that this code stands in (where it is one) and of the program; of an installed
// program, ../lib.
std::vector<path> own_folders() {
  std::vector<path> folders;
  Dl_info info = {};
  // For the program itself this is how it was called, which says nothing without a slash.
  const bool found = dladdr(reinterpret_cast<const void*>(&open_device), &info) != 0 && info.dli_fname;
  if (found && path(info.dli_fname).has_parent_path()) folders.push_back(path(info.dli_fname).parent_path());
  std::error_code none;
  const path program = std::filesystem::read_symlink("/proc/self/exe", none);
  if (!none) {
    folders.push_back(program.parent_path());
    folders.push_back((program.parent_path() / "../lib").lexically_normal());
  }
  append_run_path(folders);
  return folders;
}

path library_path() {
  const std::vector<path> folders = own_folders();
  std::error_code none;
  for (const path& folder : folders) {
    if (std::filesystem::exists(folder / library_name, none)) return std::filesystem::absolute(folder / library_name);
  }
  throw Error(ErrorCode::not_found, "no GPU can be used: " + std::string(library_name) + " is not in " +
                                        (folders.empty() ? "the program's folder" : folders.front().string()) +
                                        "; this was built without its CUDA part (CEPE_CUDA=off)");
}

// Without the driver's library there is no GPU: known before 500 MB of libraries are loaded.
bool has_driver() {
  void* driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (driver) dlclose(driver);
  return driver != nullptr;
}

CudaLibrary load() {
  const path file = library_path();
  if (!has_driver()) {
    throw Error(ErrorCode::unsupported, "no GPU can be used: this machine has no NVIDIA driver (libcuda.so.1)");
  }
  // It stays loaded: LibTorch registers its CUDA part in tables of the process.
  void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (!handle) {
    const char* reason = dlerror();
    throw Error(ErrorCode::unsupported, "no GPU can be used: " + file.string() + " does not load (" +
                                            (reason ? reason : "no reason given") +
                                            "); scripts/setup installs the CUDA libraries where there is a GPU");
  }
  CudaLibrary library;
  library.driver_state = reinterpret_cast<decltype(library.driver_state)>(dlsym(handle, "cepe_cuda_driver_state"));
  library.capability = reinterpret_cast<decltype(library.capability)>(dlsym(handle, "cepe_cuda_capability"));
  library.kernels = reinterpret_cast<decltype(library.kernels)>(dlsym(handle, "cepe_cuda_kernels"));
  if (!library.driver_state || !library.capability || !library.kernels) {
    throw Error(ErrorCode::unsupported, file.string() + " belongs to another version of this program");
  }
  return library;
}

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

void check_driver(const cuda::DriverState& state, int index) {
  if (state.driver == 0) throw Error(ErrorCode::unsupported, "no GPU can be used: no NVIDIA driver is running");
  if (state.driver / 1000 < state.runtime / 1000) {
    throw Error(ErrorCode::unsupported, "the NVIDIA driver is too old: it runs CUDA up to " +
                                            version_text(state.driver) + ", this program needs CUDA " +
                                            version_text(state.runtime));
  }
  if (state.devices == 0) {
    throw Error(ErrorCode::unsupported,
                std::string("no GPU can be used: ") + (state.error ? state.error : "none found"));
  }
  if (index >= state.devices) {
    throw Error(ErrorCode::unsupported, "no device 'cuda:" + std::to_string(index) + "': this machine has " +
                                            std::to_string(state.devices) + " GPU" + (state.devices > 1 ? "s" : "") +
                                            ", numbered from 0");
  }
}

at::Device open_gpu(int index) {
  OpenDevices& devices = open_devices();
  const std::lock_guard lock(devices.mutex);
  if (!devices.library.driver_state) devices.library = load();
  check_driver(devices.library.driver_state(), index);
  if (!at::globalContext().hasCUDA()) {
    throw Error(ErrorCode::internal, "LibTorch was asked for CUDA before its CUDA part was loaded; open the GPU first");
  }
  at::globalContext().setFloat32MatmulPrecision("highest");
  at::globalContext().setAllowTF32CuDNN(false);
  const cuda::CudaKernels* kernels = devices.library.kernels(index);
  if (!kernels && devices.kernels.load(std::memory_order_relaxed)) {
    throw Error(ErrorCode::unsupported, std::string(library_name) + " has no machine code for GPU " +
                                            std::to_string(index) +
                                            ", and has for one that is used already; use GPUs of one kind together");
  }
  devices.any_without_kernels |= kernels == nullptr;
  devices.capabilities.at(static_cast<size_t>(index)) = devices.library.capability(index);
  devices.kernels.store(devices.any_without_kernels ? nullptr : kernels, std::memory_order_release);
  devices.any.store(true, std::memory_order_release);
  return {at::kCUDA, static_cast<c10::DeviceIndex>(index)};
}

at::Device open_automatically() {
  if (!has_driver()) return at::kCPU;
  try {
    return open_gpu(0);
  } catch (const Error& error) {
    base::warn(std::string("the CPU is used: ") + error.what());
    return at::kCPU;
  }
}

[[noreturn]] void refuse_device(std::string_view name) {
  throw Error(ErrorCode::invalid_argument,
              "device '" + std::string(name) + "': known are cpu, cuda, cuda:N (N from 0) and auto");
}

// N of "cuda:N".
int index_of(std::string_view name) {
  const std::string_view digits = name.substr(name.find(':') + 1);
  int index = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
  if (error != std::errc() || end != digits.data() + digits.size() || index < 0 || index > most_that_libtorch_counts) {
    refuse_device(name);
  }
  return index;
}

}  // namespace

void check_device_name(std::string_view name) {
  if (name == "cpu" || name == "auto" || name == "cuda") return;
  if (!name.starts_with("cuda:")) refuse_device(name);
  index_of(name);
}

at::Device open_device(std::string_view name) {
  check_device_name(name);
  if (name == "cpu") return at::kCPU;
  if (name == "auto") return open_automatically();
  return open_gpu(name == "cuda" ? 0 : index_of(name));
}

int compute_capability(at::Device device) {
  if (device.is_cpu()) return 0;
  return open_devices().capabilities.at(static_cast<size_t>(device.index())).load(std::memory_order_relaxed);
}

bool cuda_is_open() { return open_devices().any.load(std::memory_order_acquire); }

// Both go through what LibTorch's CUDA part registered with c10 when it was loaded: nothing of CUDA is linked here.
void synchronise(at::Device device) {
  if (!device.is_cpu()) c10::impl::getDeviceGuardImpl(device.type())->synchronizeDevice(device.index());
}

std::optional<int64_t> peak_device_bytes(at::Device device) {
  if (device.is_cpu()) return std::nullopt;
  c10::DeviceAllocator* allocator = c10::getDeviceAllocator(device.type());
  if (!allocator->initialized()) return 0;
  const c10::CachingDeviceAllocator::DeviceStats stats = allocator->getDeviceStats(device.index());
  return stats.reserved_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)].peak;
}

void reset_peak_device_bytes(at::Device device) {
  if (device.is_cpu()) return;
  c10::DeviceAllocator* allocator = c10::getDeviceAllocator(device.type());
  if (!allocator->initialized()) return;
  allocator->emptyCache();
  allocator->resetPeakStats(device.index());
}

int64_t available_bytes(at::Device device) {
  if (device.is_cpu()) return base::available_bytes();
  c10::DeviceAllocator* allocator = c10::getDeviceAllocator(device.type());
  const c10::CachingDeviceAllocator::DeviceStats stats = allocator->getDeviceStats(device.index());
  const auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  const int64_t unused = stats.reserved_bytes[all].current - stats.allocated_bytes[all].current;
  return static_cast<int64_t>(allocator->getMemoryInfo(device.index()).first) + unused;
}

namespace cuda {

const CudaKernels* kernels() { return open_devices().kernels.load(std::memory_order_acquire); }

void check(const char* error, const char* kernel) {
  if (error) throw Error(ErrorCode::internal, std::string("CUDA kernel ") + kernel + ": " + error);
}

}  // namespace cuda

bool is_out_of_memory(const std::exception& error) {
  if (dynamic_cast<const std::bad_alloc*>(&error) || dynamic_cast<const c10::OutOfMemoryError*>(&error)) return true;
  const auto* torch = dynamic_cast<const c10::Error*>(&error);
  if (!torch) return false;
  const std::string_view message = torch->what_without_backtrace();
  return message.find("allocate memory") != std::string_view::npos ||  // the CPU's allocator
         message.find("out of memory") != std::string_view::npos;      // CUDA itself, of a launch
}

}  // namespace cepe::ops
