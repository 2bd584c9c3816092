// What this machine can do, asked before anything is loaded.
#pragma once

#include <c10/core/Device.h>

#include <string>

namespace cepe::cli {

struct ProcessorFeatures {
  bool known = false;  // whether this kind of processor has such features at all
  bool avx2 = false, fma = false, f16c = false;
};
ProcessorFeatures processor_features();
// A sentence about what the processor lacks, empty where it lacks nothing.
std::string missing_processor_feature(const ProcessorFeatures& features);

// ops::open_device with what to do instead added to its errors.
at::Device open_device(const std::string& name);

}  // namespace cepe::cli
