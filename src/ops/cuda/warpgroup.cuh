// wgmma: the products of a group of four warps (sm_90a), bfloat16 in, float32 out. They run in the background: open a
// batch, multiply, close it, wait. Layouts: PTX ISA, "asynchronous warpgroup level matrix instructions".
#pragma once

#include <cstdint>

namespace cepe::ops::cuda {

// A matrix in shared memory: atoms of 8 rows x 128 bytes in which place_of (paged_tiles.cuh) permutes the 16-byte
// pieces of a row, each at a multiple of 1024. `across`: bytes from atom to atom along the 128-byte direction, where a
// product needs more than one; `down`: from eight rows to the next eight.
__device__ constexpr uint64_t matrix_at(uint32_t address, uint32_t across, uint32_t down) {
  constexpr uint64_t swizzled_by_128_bytes = uint64_t{1} << 62;
  return uint64_t{(address & 0x3ffff) >> 4} | uint64_t{across >> 4} << 16 | uint64_t{down >> 4} << 32 |
         swizzled_by_128_bytes;
}

// The same of atoms of 8 rows x 64 bytes, whose pieces are permuted among four (piece ^ row / 2 % 4).
__device__ constexpr uint64_t narrow_matrix_at(uint32_t address, uint32_t down) {
  constexpr uint64_t swizzled_by_64_bytes = uint64_t{2} << 62;
  return uint64_t{(address & 0x3ffff) >> 4} | uint64_t{1} << 16 | uint64_t{down >> 4} << 32 | swizzled_by_64_bytes;
}

// Before a batch: registers written so far are there for it.
__device__ inline void open_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void close_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Until at most `left` batches are under way. The registers of those are not to be touched.
template <int left>
__device__ inline void wait_for_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(left) : "memory");
}

// The sums of a product as operands: what PTX calls them, and where they are.
#define CEPE_NAMES_16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define CEPE_NAMES_32 CEPE_NAMES_16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define CEPE_NAMES_64                                                                \
  CEPE_NAMES_32                                                                      \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47" \
  ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define CEPE_SUMS_FROM(kind, sums, at)                                                                    \
  kind(sums[at]), kind(sums[(at) + 1]), kind(sums[(at) + 2]), kind(sums[(at) + 3]), kind(sums[(at) + 4]), \
      kind(sums[(at) + 5]), kind(sums[(at) + 6]), kind(sums[(at) + 7])
#define CEPE_SUMS_16(kind, sums) CEPE_SUMS_FROM(kind, sums, 0), CEPE_SUMS_FROM(kind, sums, 8)
#define CEPE_SUMS_32(kind, sums) \
  CEPE_SUMS_16(kind, sums), CEPE_SUMS_FROM(kind, sums, 16), CEPE_SUMS_FROM(kind, sums, 24)
#define CEPE_SUMS_64(kind, sums)                                                            \
  CEPE_SUMS_32(kind, sums), CEPE_SUMS_FROM(kind, sums, 32), CEPE_SUMS_FROM(kind, sums, 40), \
      CEPE_SUMS_FROM(kind, sums, 48), CEPE_SUMS_FROM(kind, sums, 56)

// sums [64, 64] (+)= a [64, 16] b [64, 16]^T: a in registers as of mma.m16n8k16, a warp its sixteen rows, b in shared
// memory, a row's sixteen elements side by side. sums[4 * j + i] of lane l is that of row l / 4 + i / 2 * 8, column
// 8 * j + 2 * (l % 4) + i % 2.
__device__ inline void multiply_keys(float (&sums)[32], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.eq.b32 add, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" CEPE_NAMES_32
      "}, {%32, %33, %34, %35}, %36, add, 1, 1, 0;\n}"
      : CEPE_SUMS_32("+f", sums)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

// sums [64, 32] (+)= a [64, 16] b [32, 16]^T likewise, in float16.
__device__ inline void multiply_rows(float (&sums)[16], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.eq.b32 add, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 {" CEPE_NAMES_16
      "}, {%16, %17, %18, %19}, %20, add, 1, 1, 0;\n}"
      : CEPE_SUMS_16("+f", sums)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

// sums [64, 64] += a [64, 32] b [64, 32]^T in int8, both in shared memory, a row's values side by side.
__device__ inline void multiply_bytes(int (&sums)[32], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.eq.b32 add, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k32.s32.s8.s8 {" CEPE_NAMES_32 "}, %32, %33, add;\n}"
      : CEPE_SUMS_32("+r", sums)
      : "l"(a), "l"(b));
}

// multiply_keys with a in shared memory too, laid out as b is.
__device__ inline void multiply_keys(float (&sums)[32], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.eq.b32 add, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" CEPE_NAMES_32 "}, %32, %33, add, 1, 1, 0, 0;\n}"
      : CEPE_SUMS_32("+f", sums)
      : "l"(a), "l"(b));
}

// The same with both from shared memory: b stands row by row as values do, [16, 64] with n innermost.
__device__ inline void multiply_values(float (&sums)[32], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.eq.b32 add, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" CEPE_NAMES_32 "}, %32, %33, add, 1, 1, 0, 1;\n}"
      : CEPE_SUMS_32("+f", sums)
      : "l"(a), "l"(b));
}

// The same with both from shared memory: b stands row by row as values do, [16, 128] with n innermost.
__device__ inline void multiply_values(float (&sums)[64], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.eq.b32 add, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" CEPE_NAMES_64 "}, %64, %65, add, 1, 1, 0, 1;\n}"
      : CEPE_SUMS_64("+f", sums)
      : "l"(a), "l"(b));
}

// sums [64, 128] (+)= a [64, 16] b [128, 16]^T, both in shared memory, a row's sixteen elements side by side; without
// `add` what sums held is lost.
__device__ inline void multiply_keys(float (&sums)[64], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" CEPE_NAMES_64 "}, %64, %65, add, 1, 1, 0, 0;\n}"
      : CEPE_SUMS_64("+f", sums)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}

// The same with a in registers.
__device__ inline void multiply_keys(float (&sums)[64], const uint32_t (&a)[4], uint64_t b, bool add) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" CEPE_NAMES_64
      "}, {%64, %65, %66, %67}, %68, add, 1, 1, 0;\n}"
      : CEPE_SUMS_64("+f", sums)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)));
}

// sums [64, 64] += a [64, 16] b [16, 64]: a in registers, b row by row as values stand.
__device__ inline void multiply_values(float (&sums)[32], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.eq.b32 add, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" CEPE_NAMES_32
      "}, {%32, %33, %34, %35}, %36, add, 1, 1, 1;\n}"
      : CEPE_SUMS_32("+f", sums)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
// The same of 128 columns.
__device__ inline void multiply_values(float (&sums)[64], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.eq.b32 add, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" CEPE_NAMES_64
      "}, {%64, %65, %66, %67}, %68, add, 1, 1, 1;\n}"
      : CEPE_SUMS_64("+f", sums)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

#undef CEPE_NAMES_16
#undef CEPE_NAMES_32
#undef CEPE_NAMES_64
#undef CEPE_SUMS_FROM
#undef CEPE_SUMS_16
#undef CEPE_SUMS_32
#undef CEPE_SUMS_64

}  // namespace cepe::ops::cuda
