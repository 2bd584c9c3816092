// A .npy file; where the input does not begin as one, a pickle of an array.
#include <limits>
#include <vector>

#include "base/error.h"
#include "formats/npy.h"
#include "formats/numpy_pickle.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cepe::formats;
  const auto bytes = std::as_bytes(std::span(data, size));
  try {
    const bool is_npy = size > 0 && data[0] == 0x93;
    const NumpyArray array = is_npy ? parse_npy(bytes, "fuzz") : parse_numpy_pickle(bytes, "fuzz");
    std::vector<int32_t> values(static_cast<size_t>(array.count()));
    read_integers(array, 0, std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max(), values, "fuzz");
  } catch (const cepe::base::Error& error) {
    if (!error.is_users()) throw;  // a defect of ours, not of the file
  }
  return 0;
}
