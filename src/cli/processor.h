// What this machine's processor can do, asked before anything else.
#pragma once

#include <string>

namespace cepe::cli {

struct ProcessorFeatures {
  bool known = false;  // whether this kind of processor has such features at all
  bool avx2 = false, fma = false;
};
ProcessorFeatures processor_features();
// A sentence about what the processor lacks, empty where it lacks nothing.
std::string missing_processor_feature(const ProcessorFeatures& features);

}  // namespace cepe::cli
