// Normalisation over the last dimension. One definition each: a fused kernel (CPU, or CUDA for rms_norm) where there is
// one for the types and sizes, ATen operations elsewhere. rms_norm has fused first derivatives too, in x and weight
// (Zhang and Sennrich, arXiv 1910.07467); layer_norm is composed where something is differentiated.
#pragma once

#include <ATen/core/Tensor.h>

namespace cepe::ops {

// weight * (x * rsqrt(mean(x^2) + eps)), the bracket in float32, weight after the cast back to x's type (Llama).
// x [..., C], weight [C] -> [..., C] of x's type. With `unit_offset`, (1 + weight) and all of it in float32 (Gemma).
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, bool unit_offset = false);

// x + added, of x's type, and rms_norm of it, in one pass over memory on a GPU. x and added of one shape.
struct SumAndNorm {
  at::Tensor sum, normed;
};
SumAndNorm add_rms_norm(const at::Tensor& x, const at::Tensor& added, const at::Tensor& weight, double eps,
                        bool unit_offset = false);

// (x - mean) * rsqrt(var + eps) * weight + bias (GPT-2, NeoX). bias may be undefined.
at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps);

}  // namespace cepe::ops
