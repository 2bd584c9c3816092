#include "context/state_codec.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

namespace cepe::context {

at::Tensor StateCodec::pack(const at::Tensor& states) const {
  if (!is_packed()) return states.to(state_type()).contiguous();
  const at::Tensor values = states.to(at::kFloat);
  const at::Tensor scales = values.abs().amax(-1, /*keepdim=*/true).div(127).clamp_min(1e-30);  // [.., S, 1]
  const at::Tensor rounded = values.div(scales).round().clamp(-127, 127).to(at::kChar);
  const at::Tensor parts[] = {rounded.contiguous().view(at::kByte).flatten(-2),
                              scales.contiguous().view(at::kByte).flatten(-2)};
  return at::cat(parts, -1);
}

at::Tensor StateCodec::unpack(const at::Tensor& packed, int64_t rows) const {
  if (!is_packed()) return packed;
  const at::Tensor values = packed.narrow(-1, 0, rows * width_).view(at::kChar).unflatten(-1, {rows, width_});
  const at::Tensor scales =
      packed.narrow(-1, rows * width_, rows * 4).contiguous().view(at::kFloat).unflatten(-1, {rows, 1});
  return values.to(at::kFloat).mul(scales).to(at::kBFloat16);
}

at::Tensor StateCodec::empty(int64_t rows, bool pinned) const {
  const auto options = at::TensorOptions().pinned_memory(pinned);
  if (!is_packed()) return at::empty({rows, width_}, options.dtype(state_type()));
  return at::empty({static_cast<int64_t>(shape(rows).payload_bytes())}, options.dtype(at::kByte));
}

std::span<const std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

std::span<std::byte> writable_bytes_of(const at::Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.mutable_data_ptr()), tensor.nbytes()};
}

}  // namespace cepe::context
