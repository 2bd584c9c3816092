// The time line of the kernels of any program, one by one also within a recorded graph, written when the program ends.
// CUDA loads it into the program by itself:
//   CUDA_INJECTION64_PATH=$PWD/build/release/bin/libkernel_times.so KERNEL_TIMES=times.txt cepe bench ...
//   bench/kernel_times.py times.txt
// A line a kernel, in the order of their ends: begin and end in nanoseconds, blocks, name. KERNEL_TIMES_LAST: no more
// than the last so many (20,000).
#include <cupti.h>
#include <cxxabi.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace {

struct KernelTime {
  uint64_t begin, end;
  int64_t blocks;
  std::string name;
};

struct KernelTimes {
  std::mutex mutex;
  std::vector<KernelTime> kernels;
};

// Never destroyed: CUPTI may still deliver while the process ends.
KernelTimes& kernel_times() {
  static auto* const times = new KernelTimes;
  return *times;
}

// `attend_pages` of void cepe::ops::cuda::attend_pages<...>(...).
std::string own_name(const char* mangled) {
  if (!mangled) return "?";
  const std::unique_ptr<char, decltype(&std::free)> whole(abi::__cxa_demangle(mangled, nullptr, nullptr, nullptr),
                                                          &std::free);
  std::string name = whole ? whole.get() : mangled;
  constexpr const char* unnamed = "(anonymous namespace)::";
  for (size_t at = name.find(unnamed); at != std::string::npos; at = name.find(unnamed))
    name.erase(at, std::string(unnamed).size());
  name = name.substr(0, name.find_first_of("<("));
  const size_t last = name.find_last_of(" :");
  return last == std::string::npos ? name : name.substr(last + 1);
}

void CUPTIAPI give_buffer(uint8_t** buffer, size_t* size, size_t* most_records) {
  constexpr size_t bytes = size_t{8} << 20;
  *buffer = static_cast<uint8_t*>(std::aligned_alloc(8, bytes));
  *size = *buffer ? bytes : 0;
  *most_records = 0;
}

void CUPTIAPI take_buffer(CUcontext /*context*/, uint32_t /*stream*/, uint8_t* buffer, size_t /*size*/, size_t filled) {
  KernelTimes& times = kernel_times();
  const std::lock_guard<std::mutex> lock(times.mutex);
  CUpti_Activity* record = nullptr;
  while (cuptiActivityGetNextRecord(buffer, filled, &record) == CUPTI_SUCCESS) {
    if (record->kind != CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) continue;
    const auto* kernel = reinterpret_cast<const CUpti_ActivityKernel10*>(record);
    times.kernels.push_back({kernel->start, kernel->end, int64_t{kernel->gridX} * kernel->gridY * kernel->gridZ,
                             own_name(kernel->name)});
  }
  std::free(buffer);
}

void write_times() {
  cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
  KernelTimes& times = kernel_times();
  const std::lock_guard<std::mutex> lock(times.mutex);
  const char* path = std::getenv("KERNEL_TIMES");
  const char* last = std::getenv("KERNEL_TIMES_LAST");
  std::FILE* file = std::fopen(path ? path : "kernel_times.txt", "w");
  if (!file) return std::perror("KERNEL_TIMES");
  std::vector<KernelTime>& kernels = times.kernels;
  std::sort(kernels.begin(), kernels.end(), [](const auto& a, const auto& b) { return a.end < b.end; });
  const size_t most = last ? std::strtoull(last, nullptr, 10) : 20000;
  for (size_t i = kernels.size() > most ? kernels.size() - most : 0; i < kernels.size(); ++i) {
    std::fprintf(file, "%llu %llu %lld %s\n", static_cast<unsigned long long>(kernels[i].begin),
                 static_cast<unsigned long long>(kernels[i].end), static_cast<long long>(kernels[i].blocks),
                 kernels[i].name.c_str());
  }
  std::fclose(file);
}

}  // namespace

extern "C" int InitializeInjection() {
  const bool ready = cuptiActivityRegisterCallbacks(give_buffer, take_buffer) == CUPTI_SUCCESS &&
                     cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) == CUPTI_SUCCESS;
  if (!ready) {
    std::fprintf(stderr, "kernel_times: CUPTI cannot be used here\n");
    return 0;
  }
  std::atexit(write_times);
  return 1;
}
