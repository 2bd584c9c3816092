#include "context/state_codec.h"

#include <ATen/ops/empty.h>

#include "ops/int8_rows.h"

namespace cepe::context {

at::Tensor StateCodec::pack(const at::Tensor& states) const {
  if (!is_packed()) return states.to(state_type()).contiguous();
  return ops::int8_rows(states);
}

at::Tensor StateCodec::page_of(const at::Tensor& packed) const {
  return packed_pages_ ? packed : ops::unpacked_rows(packed, state_type());
}

at::Tensor StateCodec::empty_page(int64_t rows, at::Device device) const {
  return at::empty({rows, page_width()}, at::TensorOptions(device).dtype(page_type()));
}

at::Tensor StateCodec::empty(int64_t rows, bool pinned) const {
  const auto options = at::TensorOptions().pinned_memory(pinned);
  if (!is_packed()) return at::empty({rows, width_}, options.dtype(state_type()));
  return at::empty({rows, width_ + 4}, options.dtype(at::kByte));
}

std::span<const std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

std::span<std::byte> writable_bytes_of(const at::Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.mutable_data_ptr()), tensor.nbytes()};
}

}  // namespace cepe::context
