// The GPU's own exponential and inverse, some 2^-22 off, for what is rounded to bfloat16 or summed with it: each one
// instruction, where the library's functions take care of subnormal numbers too (here they are zero).
#pragma once

namespace cepe::ops::cuda {

__device__ inline float power_of_two(float exponent) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(exponent));
  return result;
}

__device__ inline float inverse(float x) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

}  // namespace cepe::ops::cuda
