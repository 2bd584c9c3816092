// What Hopper (sm_90) gives thread blocks beside its tensor cores: barriers in shared memory that also count bytes,
// clusters of blocks that write into one another's shared memory, tiles copied by an engine of their own.
#pragma once

#include <cstdint>

#include "ops/cuda/tensor_core.cuh"

namespace cepe::ops::cuda {

// A barrier's phase ends when `arrivals` threads have arrived and all bytes that they said to expect have come.
__device__ inline void make_barrier(uint32_t barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// After all are made, before the cluster knows of them.
__device__ inline void show_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ inline void arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ inline void arrive_and_expect(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
// At a barrier of another block of the cluster.
__device__ inline void arrive_there(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Until the phase of that parity has ended. A fresh barrier's phase before the first counts as ended, with parity 1.
// Shared memory is read afterwards, and nothing else that another block wrote: with .acquire.cluster, which would be
// for that, every wait also empties the first-level cache.
__device__ inline void wait_for(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n.reg .pred done;\n"
      "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

__device__ inline bool has_ended(uint32_t barrier, uint32_t parity) {
  uint32_t done;
  asm volatile(
      "{\n.reg .pred done;\n"
      "mbarrier.test_wait.parity.shared::cta.b64 done, [%1], %2;\n"
      "selp.u32 %0, 1, 0, done;\n}"
      : "=r"(done)
      : "r"(barrier), "r"(parity)
      : "memory");
  return done != 0;
}

// Where stages of a ring are taken in turn: the stage, and the parity of the phase in which it is filled.
template <int stages>
struct Turn {
  uint32_t stage = 0, parity = 0;
  __device__ void next() {
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  }
  __device__ void skip(uint32_t count) {
    stage += count % stages;
    parity ^= count / stages & 1;
    if (stage >= stages) {
      stage -= stages;
      parity ^= 1;
    }
  }
};

// Of a warp whose lanes are all here, one. The compiler knows that it is: what an engine is asked for by a lane chosen
// otherwise stands in a loop over lanes that might differ, of some 80 cycles a time.
__device__ inline bool is_elected() {
  uint32_t elected;
  asm volatile("{\n.reg .pred one;\nelect.sync _|one, 0xffffffff;\nselp.u32 %0, 1, 0, one;\n}" : "=r"(elected));
  return elected != 0;
}

__device__ inline uint32_t rank_in_cluster() {
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
__device__ inline uint32_t blocks_in_cluster() {
  uint32_t blocks;
  asm("mov.u32 %0, %%cluster_nctaid.x;" : "=r"(blocks));
  return blocks;
}
// An address of this block's shared memory -> the same place in block `rank` of the cluster.
__device__ inline uint32_t place_in(uint32_t address, uint32_t rank) {
  uint32_t there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
  return there;
}
// Every thread of the cluster calls both, the one and then the other; what was written to shared memory before the
// first is seen after the second.
__device__ inline void arrive_at_cluster() { asm volatile("barrier.cluster.arrive.release;" ::: "memory"); }
__device__ inline void wait_for_cluster() { asm volatile("barrier.cluster.wait.acquire;" ::: "memory"); }
// Every thread of the one warpgroup that uses it calls it.
__device__ inline void wait_for_group() { asm volatile("bar.sync 1, 128;" ::: "memory"); }
// The same of several warpgroups, each with a number of its own from 1 on.
__device__ inline void wait_for_group(int number) { asm volatile("bar.sync %0, 128;" ::"r"(number) : "memory"); }
// 16 or 4 bytes to another block, counted by a barrier there.
__device__ inline void send(uint32_t to, float4 values, uint32_t barrier) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(to),
      "f"(values.x), "f"(values.y), "f"(values.z), "f"(values.w), "r"(barrier)
      : "memory");
}

__device__ inline void send(uint32_t to, uint32_t value, uint32_t barrier) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(to), "r"(value),
               "r"(barrier)
               : "memory");
}

__device__ inline float4 load_four(uint32_t from) {
  float4 values;
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(values.x), "=f"(values.y), "=f"(values.z), "=f"(values.w)
               : "r"(from)
               : "memory");
  return values;
}
// 8 or 16 bytes from any block of the cluster.
__device__ inline float2 read_two(uint32_t from) {
  float2 values;
  asm volatile("ld.shared::cluster.v2.f32 {%0, %1}, [%2];" : "=f"(values.x), "=f"(values.y) : "r"(from) : "memory");
  return values;
}
__device__ inline float4 read_four(uint32_t from) {
  float4 values;
  asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(values.x), "=f"(values.y), "=f"(values.z), "=f"(values.w)
               : "r"(from)
               : "memory");
  return values;
}

// A word of device memory by which blocks tell one another that what stands before it in the program is written.
__device__ inline void store_released(int* to, int value) {
  asm volatile("st.release.gpu.global.s32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}
__device__ inline int load_acquired(const int* from) {
  int value;
  asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}

// What this thread wrote to shared memory by ordinary stores is there for wgmma and the copy engine.
__device__ inline void show_to_engines() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

__device__ inline void fetch_map(const void* map) { asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"); }
// A box of a tensor map by the copy engine; its bytes are counted by the barrier.
__device__ inline void copy_box(uint32_t to, const void* map, int32_t x0, int32_t x1, int32_t x2, int32_t x3,
                                int32_t x4, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5, "
      "%6}], [%7];" ::"r"(to),
      "l"(map), "r"(x0), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(barrier)
      : "memory");
}

// The same into the same place of each block of the cluster that `blocks` has a bit for, and their barriers there.
__device__ inline void copy_box_to(uint32_t blocks, uint32_t to, const void* map, int32_t x0, int32_t x1, int32_t x2,
                                   int32_t x3, int32_t x4, uint32_t barrier) {
  asm volatile(
      "{\n.reg .b16 blocks;\ncvt.u16.u32 blocks, %8;\n"
      "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, "
      "{%2, %3, %4, %5, %6}], [%7], blocks;\n}" ::"r"(to),
      "l"(map), "r"(x0), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(barrier), "r"(blocks)
      : "memory");
}
// From shared memory to a box of a tensor map, in the background; of a group of this thread's that end_of_stores ends.
__device__ inline void store_box(const void* map, int32_t x0, int32_t x1, uint32_t from) {
  asm volatile(
      "cp.async.bulk.tensor.5d.global.shared::cta.tile.bulk_group [%0, {%1, %2, %4, %4, %4}], [%3];" ::"l"(map),
      "r"(x0), "r"(x1), "r"(from), "r"(0)
      : "memory");
}
__device__ inline void end_of_stores() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// Until at most `left` of this thread's groups have their shared memory yet to be read.
template <int left>
__device__ inline void wait_for_stores() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(left) : "memory");
}

// Bytes by the copy engine, a multiple of 16 at multiples of 16, counted likewise.
__device__ inline void copy_bytes(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
               "l"(from), "r"(bytes), "r"(barrier)
               : "memory");
}

// Four 8 x 8 matrices of 16-bit elements to shared memory, the reverse of load_matrices (tensor_core.cuh), and of
// load_transposed.
__device__ inline void store_transposed(uint32_t to, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(a), "r"(b),
               "r"(c), "r"(d)
               : "memory");
}
__device__ inline void store_matrices(uint32_t to, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(a), "r"(b), "r"(c),
               "r"(d)
               : "memory");
}

// A warpgroup's registers a thread from here on; a kernel is launched with `before`. More than that waits until others
// have given theirs up.
template <int registers, int before>
__device__ inline void set_registers() {
  if constexpr (registers < before) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
  }
}

}  // namespace cepe::ops::cuda
