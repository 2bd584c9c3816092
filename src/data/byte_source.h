// A file read from front to back in pieces, decompressed on the way: plain, gzip (zlib) or zstd, told apart by content.
#pragma once

#include <memory>
#include <span>

#include "base/files.h"

namespace cepe::data {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Fills the front of `out`; how many bytes, 0 at the end. Errors: io; corrupt for compressed data that is damaged or
  // cut short, naming the file.
  virtual size_t read(std::span<char> out) = 0;
};

// Errors: not_found, io; invalid_argument for what is no regular file; corrupt where a name ending in .gz or .zst holds
// something else.
std::unique_ptr<ByteSource> open_source(const base::Path& path);

}  // namespace cepe::data
