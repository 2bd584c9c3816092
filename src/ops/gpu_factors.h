// What every product of our own on a GPU asks of its two factors.
#pragma once

#include "ops/cuda/loaded.h"
#include "ops/fused.h"

namespace cepe::ops {

// Whether x [..., in] and weight [out, in] lie on an opened GPU with kernels for it, dense, of bfloat16, aligned to
// `alignment` bytes, with nothing to differentiate and at least one row.
inline bool are_gpu_factors(const at::Tensor& x, const at::Tensor& weight, uintptr_t alignment = 16) {
  const auto taken = [&](const at::Tensor& tensor) {
    return is_plain_dense(tensor, at::kBFloat16, x.device()) && is_aligned(tensor, alignment);
  };
  return x.is_cuda() && cuda::kernels() && x.dim() > 0 && x.numel() > 0 && weight.dim() == 2 &&
         x.size(-1) == weight.size(1) && taken(x) && taken(weight);
}

}  // namespace cepe::ops
