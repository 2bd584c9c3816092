// The activations, as two kernels take them.
#pragma once

#include "ops/activation_kind.h"
#include "ops/cuda/approximate.cuh"

namespace cepe::ops::cuda {

// As it is rounded to T afterwards: to bfloat16 the fast exponential and quotient (some 2^-21 off) give the same but at
// a tie.
template <class T, Activation activation>
__device__ float activated(float x) {
  if constexpr (activation == Activation::silu && sizeof(T) == 2) {
    return x * inverse(1.0f + power_of_two(x * -1.4426950408889634f));
  } else if constexpr (activation == Activation::silu) {
    return x / (1.0f + expf(-x));
  } else if constexpr (activation == Activation::gelu) {
    return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
  } else if constexpr (activation == Activation::gelu_tanh) {
    const float inner = 0.79788456080286536f * (x + 0.044715f * (x * x * x));
    return 0.5f * x * (1.0f + tanhf(inner));
  } else {
    return x < 0.0f ? 0.0f : x;  // NaN stays
  }
}

}  // namespace cepe::ops::cuda
