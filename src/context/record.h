// One chunk's states as bytes (or what else is kept of it), the same in a segment file and on a remote store.
// Little-endian, tensor-free.
//
//    0  "CEPEPAGE"    8  version u32   12  type u32   16  rows u64   24  width u64   32  key [32]
//   64  bytes of values u64   72  bytes of source u32   76  zeros [4]   80  XXH3-128 of values and source [16]
//   96  zeros [16]   112  XXH3-128 of the 112 bytes before it [16]
//  128  values, row by row; then the source (the document's name, UTF-8, perhaps empty); then zeros to a multiple of 64
//
// Values of type int8: rows x width bytes, then a float32 scale for each row. Of type bytes: rows x width bytes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "context/chunk.h"

namespace cepe::context {

struct RecordShape {
  enum class Type : uint32_t { bfloat16 = 1, float32 = 2, int8 = 3, bytes = 4 };
  static bool is_type(int64_t number) { return number >= 1 && number <= 4; }
  Type type = Type::bfloat16;
  int64_t rows = 0, width = 0;

  size_t payload_bytes() const;  // of the values alone
  bool operator==(const RecordShape&) const = default;
};
std::string to_string(const RecordShape& shape);

constexpr size_t record_alignment = 64, record_head_bytes = 128, longest_source = 4096;
using RecordHead = std::array<std::byte, record_head_bytes>;

// What a head says, once its own checksum agrees.
struct RecordInfo {
  ChunkKey key{};
  RecordShape shape;
  size_t source_bytes = 0;
  std::array<std::byte, 16> checksum{};

  size_t record_bytes() const;  // head, values, source and what fills up
};

size_t record_bytes(const RecordShape& shape, std::string_view source);
RecordHead make_head(const ChunkKey& key, const RecordShape& shape, std::span<const std::byte> values,
                     std::string_view source);
// What stands behind the values.
std::string make_tail(const RecordShape& shape, std::string_view source);

// Nothing where these bytes are no head, or damaged.
std::optional<RecordInfo> read_head(std::span<const std::byte> head);
// "" or, in words, why this is not the record that was asked for.
std::string difference(const RecordInfo& found, const ChunkKey& key, const RecordShape& shape);
bool agrees(const RecordInfo& info, std::span<const std::byte> values, std::string_view source);

}  // namespace cepe::context
