// How states are kept: as they are (bfloat16, float32), or as 8 bits a value with a scale for each row.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>

#include "context/record.h"

namespace cepe::context {

class StateCodec {
 public:
  // packed_pages: pages are handed out in 8 bits too, as that device reads them.
  StateCodec(RecordShape::Type type, int64_t width, bool packed_pages)
      : type_(type), width_(width), packed_pages_(packed_pages && type == RecordShape::Type::int8) {}

  RecordShape shape(int64_t rows) const { return {type_, rows, width_}; }
  bool is_packed() const { return type_ == RecordShape::Type::int8; }

  // Rows of states [.., S, E] as they are kept, on their device: int8 as ops/int8_rows.h, otherwise as they are; and
  // these as they are handed out: dense, or in 8 bits.
  at::Tensor pack(const at::Tensor& states) const;
  at::Tensor page_of(const at::Tensor& packed) const;

  at::Tensor empty(int64_t rows, bool pinned) const;  // of one chunk, packed, in host memory
  at::Tensor empty_page(int64_t rows, at::Device device) const;
  at::ScalarType page_type() const { return packed_pages_ ? at::kByte : state_type(); }
  int64_t page_width() const { return width_ + (packed_pages_ ? 4 : 0); }

 private:
  // Of states that are not packed.
  at::ScalarType state_type() const { return type_ == RecordShape::Type::float32 ? at::kFloat : at::kBFloat16; }

  RecordShape::Type type_;
  int64_t width_;
  bool packed_pages_;
};

// Of a tensor in host memory, without holes.
std::span<const std::byte> bytes_of(const at::Tensor& tensor);
std::span<std::byte> writable_bytes_of(const at::Tensor& tensor);

}  // namespace cepe::context
