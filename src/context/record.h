// The file of one chunk's states: a header of 96 bytes, then the values, row by row. Little-endian, tensor-free.
//
//   0  "CEPEPAGE"   8  version u32   12  type u32   16  rows u64   24  width u64   32  key [32]   64  SHA-256 [32]
//
// The checksum covers the header (with zeros in its own place) and the values.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "context/chunk.h"

namespace cepe::context {

struct RecordShape {
  enum class Type : uint32_t { bfloat16 = 1, float32 = 2 };
  Type type = Type::bfloat16;
  int64_t rows = 0, width = 0;

  size_t payload_bytes() const;  // of the values alone
  size_t file_bytes() const;
};

// Fills `values` (payload_bytes of `shape`) from the open file. Returns "" or, in words, why this is not the record
// that was asked for; then `values` means nothing.
std::string read_record(int descriptor, const ChunkKey& key, const RecordShape& shape, std::span<std::byte> values);

// False, with errno, where the system refuses.
bool write_record(int descriptor, const ChunkKey& key, const RecordShape& shape, std::span<const std::byte> values);

}  // namespace cepe::context
