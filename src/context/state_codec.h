// How states are kept: as they are (bfloat16, float32), or as 8 bits a value with a scale for each row.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>

#include "context/record.h"

namespace cepe::context {

class StateCodec {
 public:
  StateCodec(RecordShape::Type type, int64_t width) : type_(type), width_(width) {}

  RecordShape shape(int64_t rows) const { return {type_, rows, width_}; }
  // Type of the states that are handed out: bfloat16 or float32.
  at::ScalarType state_type() const { return type_ == RecordShape::Type::float32 ? at::kFloat : at::kBFloat16; }
  bool is_packed() const { return type_ == RecordShape::Type::int8; }

  // Rows of states as they are kept, on their device, and back; any leading dimensions. int8 (absolute maximum of the
  // row / 127 as scale): [.., S, E] -> bytes [.., S * E + 4 S]. Otherwise: the states in state_type().
  at::Tensor pack(const at::Tensor& states) const;
  at::Tensor unpack(const at::Tensor& packed, int64_t rows) const;

  at::Tensor empty(int64_t rows, bool pinned) const;  // of one chunk, packed, in host memory

 private:
  RecordShape::Type type_;
  int64_t width_;
};

// Of a tensor in host memory, without holes.
std::span<const std::byte> bytes_of(const at::Tensor& tensor);
std::span<std::byte> writable_bytes_of(const at::Tensor& tensor);

}  // namespace cepe::context
