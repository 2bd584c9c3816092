#include "base/error.h"
#include "file_bytes.h"
#include "formats/torch_bin.h"
#include "use_tensors.h"

// An input is an archive where it starts as one; else it is a pickle, put into an archive with the right checksum,
// which no mutation would find.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const auto file = input.starts_with("PK") ? cepe::test::FileBytes(input) : cepe::test::torch_bytes(input);
  try {
    cepe::test::use_tensors(cepe::formats::parse_torch_bin(file.span(), "fuzz"));
  } catch (const cepe::base::Error& error) {
    if (!error.is_users()) throw;  // a defect of ours, not of the file
  }
  return 0;
}
