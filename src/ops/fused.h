// When one of our own kernels may stand in for a composition of ATen operations, and how those of the CPU are threaded.
#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstdint>

namespace cepe::ops {

inline bool is_differentiated(const at::Tensor& tensor) {
  return tensor.defined() && tensor.requires_grad() && at::GradMode::is_enabled();
}
// Strided, on this device, of `type`, which is float32 or bfloat16. An undefined tensor passes.
inline bool suits_kernels(const at::Tensor& tensor, at::ScalarType type, at::Device device = at::kCPU) {
  if (!tensor.defined()) return true;
  return tensor.device() == device && tensor.scalar_type() == type && (type == at::kFloat || type == at::kBFloat16) &&
         tensor.layout() == at::kStrided;
}
// The same with nothing to differentiate.
inline bool is_plain(const at::Tensor& tensor, at::ScalarType type, at::Device device = at::kCPU) {
  return suits_kernels(tensor, type, device) && !is_differentiated(tensor);
}
inline bool is_plain_dense(const at::Tensor& tensor, at::ScalarType type, at::Device device = at::kCPU) {
  return is_plain(tensor, type, device) && (!tensor.defined() || tensor.is_contiguous());
}

// Where a kernel may read so many bytes at once.
inline bool is_aligned(const at::Tensor& tensor, uintptr_t bytes = 16) {
  return reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % bytes == 0;
}

inline at::Tensor empty_output(at::IntArrayRef sizes, at::ScalarType type) {
  return at::Tensor(at::detail::empty_cpu(sizes, type));
}

// body(begin, end) over rows; threads are woken only for more than about ten microseconds of work.
template <class Body>
void over_rows(int64_t rows, int64_t width, const Body& body) {
  constexpr int64_t elements_a_thread = int64_t{1} << 15;
  if (rows * width <= elements_a_thread) return body(int64_t{0}, rows);
  at::parallel_for(0, rows, std::max<int64_t>(1, elements_a_thread / std::max<int64_t>(1, width)), body);
}

}  // namespace cepe::ops
