// What products of few rows share: values that are read once, bfloat16 pairs, and whose row is whose.
#pragma once

#include "ops/cuda/elements.cuh"
#include "ops/cuda/kernels.h"
#include "ops/cuda/warp.cuh"

namespace cepe::ops::cuda {

__device__ inline uint4 load_once(const uint4* from) {
  uint4 value;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(from));
  return value;
}

// What the kernel before may have written, read once; zeros where nothing is there. Asked for where it stands: nvcc
// moves a load that it knows to where its value is wanted, when it would rather save registers.
__device__ inline uint4 load_where(bool there, const void* from) {
  uint4 value = make_uint4(0, 0, 0, 0);
  asm volatile(
      "{\n.reg .pred there;\n"
      "setp.ne.u32 there, %5, 0;\n"
      "@there ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];\n}"
      : "+r"(value.x), "+r"(value.y), "+r"(value.z), "+r"(value.w)
      : "l"(from), "r"(static_cast<uint32_t>(there))
      : "memory");
  return value;
}

// The same, of 8 bytes.
__device__ inline uint2 load_two_where(bool there, const void* from) {
  uint2 value = make_uint2(0, 0);
  asm volatile(
      "{\n.reg .pred there;\n"
      "setp.ne.u32 there, %3, 0;\n"
      "@there ld.global.v2.u32 {%0, %1}, [%2];\n}"
      : "+r"(value.x), "+r"(value.y)
      : "l"(from), "r"(static_cast<uint32_t>(there))
      : "memory");
  return value;
}

// The same, of 4 bytes.
__device__ inline float load_one_where(bool there, const void* from) {
  float value = 0;
  asm volatile(
      "{\n.reg .pred there;\n"
      "setp.ne.u32 there, %2, 0;\n"
      "@there ld.global.f32 %0, [%1];\n}"
      : "+f"(value)
      : "l"(from), "r"(static_cast<uint32_t>(there))
      : "memory");
  return value;
}

// A bfloat16 is the upper half of a float32.
__device__ inline float lower(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float upper(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

__device__ inline void add_products(float& sum, const uint4& w, const uint4& x) {
  sum = fmaf(lower(w.x), lower(x.x), sum);
  sum = fmaf(upper(w.x), upper(x.x), sum);
  sum = fmaf(lower(w.y), lower(x.y), sum);
  sum = fmaf(upper(w.y), upper(x.y), sum);
  sum = fmaf(lower(w.z), lower(x.z), sum);
  sum = fmaf(upper(w.z), upper(x.z), sum);
  sum = fmaf(lower(w.w), lower(x.w), sum);
  sum = fmaf(upper(w.w), upper(x.w), sum);
}

// Row `row` of a group, among [B, groups * heads].
template <class Run>
__device__ inline int64_t head_row(int row, int group, const Run& run) {
  const int heads = static_cast<int>(run.heads);
  return (row / heads * run.groups + group) * heads + row % heads;
}

}  // namespace cepe::ops::cuda
