// The arithmetic of Muon's step and of stochastic rounding.
#pragma once

#include <ATen/core/Tensor.h>

namespace cepe::train {

// Five Newton-Schulz steps from each matrix towards the nearest (semi-)orthogonal one: singular values end between
// about 0.7 and 1.2. [n, r, c] float32 -> [n, r, c], bfloat16 on a GPU and float32 on a CPU.
// Coefficients: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
at::Tensor orthogonalised(const at::Tensor& matrices);

// float32 -> bfloat16, up or down with probabilities that keep the mean. noise: int32 of the same shape, in [0, 2^16).
at::Tensor rounded_stochastically(const at::Tensor& values, const at::Tensor& noise);
// Such noise for `values`, the same for the same seed.
at::Tensor rounding_noise(const at::Tensor& values, uint64_t seed);

}  // namespace cepe::train
