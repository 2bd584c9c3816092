#include "base/error.h"
#include "formats/safetensors.h"
#include "use_tensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    cepe::test::use_tensors(cepe::formats::parse_safetensors(std::as_bytes(std::span(data, size)), "fuzz"));
  } catch (const cepe::base::Error& error) {
    if (!error.is_users()) throw;  // a defect of ours, not of the file
  }
  return 0;
}
