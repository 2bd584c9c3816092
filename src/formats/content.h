// What a reader makes of one file, and what a Checkpoint keeps of all its files. Readers work on bytes in memory, so
// that they can be tested and fuzzed without files.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/json.h"
#include "formats/checkpoint.h"

namespace cepe::formats {

struct ParsedFile {
  std::vector<NamedTensor> tensors;  // names are unique; views into the file's bytes or into `held`
  base::Json metadata;               // null where there is none
  // Tensors that do not lie in the file as they are wanted (compressed or strided ones).
  std::vector<std::unique_ptr<std::byte[]>> held;
};

struct Checkpoint::Content {
  base::Path path;
  std::vector<std::string> names;  // sorted
  std::vector<TensorView> views;   // of names
  base::Json metadata;
  bool is_gguf = false;
  std::vector<base::MappedFile> files;
  std::vector<std::unique_ptr<std::byte[]>> held;
};

}  // namespace cepe::formats
