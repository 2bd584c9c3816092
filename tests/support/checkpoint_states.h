// Contents of checkpoints that tell each other apart, and their comparison bit for bit.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstring>
#include <random>

#include "train/checkpoint.h"

namespace cepe::test {

// Of any type, filled with random bits (NaNs among them; a bool's bytes are 0 or 1).
inline at::Tensor random_bits(at::IntArrayRef shape, at::ScalarType type, uint64_t seed) {
  at::Tensor tensor = at::empty(shape, type);
  std::mt19937_64 random(seed);
  auto* bytes = static_cast<unsigned char*>(tensor.data_ptr());
  for (size_t i = 0; i < tensor.nbytes(); ++i)
    bytes[i] = static_cast<unsigned char>(random() & (type == at::kBool ? 1 : 255));
  return tensor;
}

inline train::CheckpointState state_of(int64_t step, int64_t version = 0) {
  const auto seed = static_cast<uint64_t>(step * 1000 + version);
  return {{{"weight", random_bits({5, 7}, at::kFloat, seed)},
           {"moment", random_bits({33}, at::kBFloat16, seed + 1)},
           {"count", random_bits({}, at::kLong, seed + 2)}},
          {{"step", step}, {"version", version}, {"rate", 0.1}}};
}

inline bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() && a.is_contiguous() && b.is_contiguous() &&
         a.device() == b.device() &&
         (a.nbytes() == 0 || std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0);
}

inline bool same(const train::CheckpointState& a, const train::CheckpointState& b) {
  if (a.state != b.state || a.tensors.size() != b.tensors.size()) return false;
  for (size_t i = 0; i < a.tensors.size(); ++i) {
    if (a.tensors[i].first != b.tensors[i].first || !same_bits(a.tensors[i].second, b.tensors[i].second)) return false;
  }
  return true;
}

}  // namespace cepe::test
