// Attention over states of 8 bits with a scale a row (ops/int8_rows.h), keys being values, on Hopper (sm_90a).
// Bound: the larger of the bytes of the states / bandwidth and 4 * query rows * cached rows * width / 989 TFLOP/s.
// Design: the products are turned round, cached rows (scores) and columns (sums) being the 64 rows of wgmma, so that of
// 32 query rows none is taken in vain. Scores are products of 8 bits, the tile as it came from memory; a query row is
// two rows of int8, high and low: 16 bits of its largest value, more than bfloat16 keeps of it. Values go from 8 bits
// in shared memory to float16 in registers, where wgmma takes them, and are never stored wide: 1.25 instructions each.
// A thread block has 32 query rows over the whole width. A warp copies tiles of 64 rows, by halves; a warpgroup takes
// scores and turns them into probabilities, times the scale of the row for the values' sake; two warpgroups add up
// values, half of the columns each.
// What holds it back (H200, 131072 rows, 32 query rows: 55 us of 32 at width 1024, 32 of 16 at 512): beginning,
// queries, the last tile, the parts and their merging are some 16 us; at width 1024 two tiles are all that fits beside
// the queries, so that memory waits for the sums of the tile before last (50 us with no product taken at all). At 512
// the warp that copies held it back (36 us) while its lanes asked for boxes, which the compiler does one lane after
// another. The tensor cores would need 1.2 us a tile of 2.07 us by the bytes (32 cycles a product of scores, 18 of
// values).
#pragma once

#include <cuda_fp16.h>

#include "ops/cuda/in_line.cuh"
#include "ops/cuda/latent_int8_queries.cuh"
#include "ops/cuda/latent_softmax.cuh"
#include "ops/cuda/warpgroup.cuh"

namespace cepe::ops::cuda {

// Two of four bytes, each a value plus 128, as float16: `bytes` selects them as __byte_perm does, each below a 0x64.
template <uint32_t bytes>
__device__ uint32_t widened_pair(uint32_t four) {
  uint32_t pair;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(pair) : "r"(four), "r"(0x64646464u), "n"(bytes));  // 1024 + byte
  asm("sub.rn.f16x2 %0, %0, %1;" : "+r"(pair) : "r"(0x64806480u));                         // - 1152
  return pair;
}

// What a thread keeps of its eight query rows, 8 * j + 2 * (lane % 4) + i at 2 * j + i: in base 2.
struct Int8Rows {
  float maximum[8], denominator[8];
};

// The maximum is raised only where it would be passed by this much, and what is summed is 2^headroom times as large as
// it would be with the maximum at 1: so float16 keeps probabilities down to 2^-35 of the largest.
inline constexpr float int8_slack = 4, int8_headroom = 11;
__device__ inline float int8_base(float maximum) { return maximum == -INFINITY ? 0.0f : maximum - int8_headroom; }

// Whether any thread of the warpgroup says so.
__device__ inline bool any_of_group(bool own) {
  uint32_t any;
  asm volatile(
      "{\n.reg .pred own, any;\n"
      "setp.ne.u32 own, %1, 0;\n"
      "bar.red.or.pred any, 1, 128, own;\n"
      "selp.u32 %0, 1, 0, any;\n}"
      : "=r"(any)
      : "r"(static_cast<uint32_t>(own))
      : "memory");
  return any != 0;
}

// Maxima (or sums) of the eight query rows over a warp's sixteen cached rows.
template <class Combine>
__device__ void over_warp(float (&values)[8], const Combine& combine) {
#pragma unroll
  for (int other = 4; other < warp; other *= 2) {
#pragma unroll
    for (float& value : values) value = combine(value, __shfl_xor_sync(0xffffffffu, value, other));
  }
}

// The same over the warpgroup: every thread gets them. Nobody writes to `exchange` again before a barrier of the group.
template <class Plan, class Combine>
__device__ void over_group(const Int8Memory<Plan>& memory, float (&values)[8], const Combine& combine) {
  const int lane = static_cast<int>(threadIdx.x) % warp, own = static_cast<int>(threadIdx.x) / warp % group_warps;
  over_warp(values, combine);
  if (lane < 4) {
#pragma unroll
    for (int i = 0; i < 8; ++i) memory.board().exchange[own][i / 2 * 8 + lane * 2 + i % 2] = values[i];
  }
  wait_for_group();
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int row = i / 2 * 8 + lane % 4 * 2 + i % 2;
    float value = memory.board().exchange[0][row];
#pragma unroll
    for (int other = 1; other < group_warps; ++other) value = combine(value, memory.board().exchange[other][row]);
    values[i] = value;
  }
}

// A tile's scores by 32 query rows, without scales, as a warp has them of its sixteen cached rows.
template <class Plan>
__device__ void int8_scores(const Int8Memory<Plan>& memory, uint32_t stage, float (&scores)[16]) {
  int sums[32] = {};
  const auto matrix = [](uint32_t address, uint32_t down) {
    return Plan::atom == 128 ? matrix_at(address, 16, down) : narrow_matrix_at(address, down);
  };
  const uint64_t keys = matrix(memory.tile(stage), Plan::box_bytes);
  const uint64_t queries = matrix(memory.queries(), box_rows * Plan::atom);
  constexpr int steps = Plan::atom / 32;  // of an atom
  open_products();
#pragma unroll
  for (int step = 0; step < Plan::blocks * 2; ++step) {
    multiply_bytes(sums, keys + (step / steps * box_rows * Plan::atom + step % steps * 32) / 16,
                   queries + (step / steps * 2 * Plan::rows * Plan::atom + step % steps * 32) / 16);
  }
  close_products();
  wait_for_products<0>();
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    scores[i] = static_cast<float>(sums[i]) + static_cast<float>(sums[16 + i]) * (1 / int8_low);
  }
}

// The warpgroup of the scores.
template <class Plan>
__device__ void take_int8_scores(const PagedAttentionRun& run, const Cut& cut, const Int8Memory<Plan>& memory,
                                 float2* all_states) {
  const int lane = static_cast<int>(threadIdx.x) % warp, own = static_cast<int>(threadIdx.x) / warp % group_warps;
  const float scale = run.scale * 1.4426950408889634f;  // base 2
  Int8Board<Plan>& board = memory.board();
  const auto larger = [](float a, float b) { return fmaxf(a, b); };
  const auto sum = [](float a, float b) { return a + b; };
  Turn<Plan::stages> tile;
  Turn<2> turn, buffer;
  const auto free_both = [&] {
    __syncwarp();
    if (lane != 0) return;
    for (int half = 0; half < 2; ++half) arrive(memory.free(tile.stage, half));
  };
  for (;; turn.next()) {
    wait_for(memory.part_full(turn.stage), turn.parity);
    const Part& part = board.parts[turn.stage];
    if (part.query_rows == 0) return;
    lay_int8_queries<Plan>(run, part, memory, own);
    Int8Rows state;
    float query_scales[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      query_scales[i] = board.query_scales[i / 2 * 8 + lane % 4 * 2 + i % 2] * scale;
      state.maximum[i] = -INFINITY;
      state.denominator[i] = 0;
    }
    for (;; tile.next(), buffer.next()) {
      for (int half = 0; half < 2; ++half) wait_for(memory.full(tile.stage, half), tile.parity);
      const int rows = board.rows[tile.stage];
      if (rows == 0) break;
      float scores[16];
      int8_scores(memory, tile.stage, scores);
      float logarithms[2];  // of the two rows' scales
      bool there[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = own * 16 + half * 8 + lane / 4;
        float row_scale;
        asm volatile("ld.shared.f32 %0, [%1];" : "=f"(row_scale) : "r"(memory.scales(tile.stage) + row * 4) : "memory");
        there[half] = row < rows;
        if (!there[half]) row_scale = 0;
        logarithms[half] = __log2f(fmaxf(row_scale, 0x1p-40f));
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          float& score = scores[i / 2 * 4 + half * 2 + i % 2];
          score = there[half] ? score * (query_scales[i] * row_scale) : -INFINITY;
        }
      }
      free_both();
      const auto score_of = [&](int half, int i) { return scores[i / 2 * 4 + half * 2 + i % 2]; };

      float highest[8], factors[8];
      bool beyond = false;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        highest[i] = fmaxf(score_of(0, i) + logarithms[0], score_of(1, i) + logarithms[1]);
        beyond = beyond || highest[i] > state.maximum[i] + int8_slack;
        factors[i] = 1;
      }
      if (any_of_group(beyond)) {
        over_group(memory, highest, larger);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          const float before = state.maximum[i];
          state.maximum[i] = fmaxf(before, highest[i]);
          if (before != -INFINITY) factors[i] = power_of_two(before - state.maximum[i]);
          state.denominator[i] *= factors[i];
        }
      }
      uint32_t pairs[4][2];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float weights[2];
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            const float away = score_of(half, j * 2 + i) - int8_base(state.maximum[j * 2 + i]);
            state.denominator[j * 2 + i] += power_of_two(away);
            weights[i] = power_of_two(away + logarithms[half]);
          }
          const __half2 pair = __floats2half2_rn(weights[0], weights[1]);
          pairs[j][half] = *reinterpret_cast<const uint32_t*>(&pair);
        }
      }
      wait_for(memory.probabilities_free(buffer.stage), buffer.parity ^ 1);
      const uint32_t probabilities = memory.probabilities(buffer.stage);
#pragma unroll
      for (int j = 0; j < 4; j += 2) {
        const int row = (j + lane / 16) * 8 + lane % 8;
        store_transposed(probabilities + row * 128 + place_of(row, own * 2 + lane / 8 % 2) * 16, pairs[j][0],
                         pairs[j][1], pairs[j + 1][0], pairs[j + 1][1]);
      }
      if (own == 0 && lane < 4) {
#pragma unroll
        for (int i = 0; i < 8; ++i) board.factors[buffer.stage][i / 2 * 8 + lane * 2 + i % 2] = factors[i];
      }
      show_to_engines();
      __syncwarp();
      if (lane == 0) arrive(memory.probabilities_full(buffer.stage));
    }
    free_both();
    tile.next();
    any_of_group(false);  // the last exchange is read
    over_group(memory, state.denominator, sum);
    if (own == 0 && lane < 4) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int row = i / 2 * 8 + lane * 2 + i % 2;
        if (row >= part.query_rows) continue;
        all_states[part.slot * cut.query_rows + row] =
            make_float2(state.maximum[i] == -INFINITY ? -INFINITY : int8_base(state.maximum[i]), state.denominator[i]);
      }
    }
    __syncwarp();
    if (lane == 0) arrive(memory.part_free(turn.stage));
  }
}

// A warpgroup of the sums of half of the columns, of `group`: where their blocks of 64 are odd, both take the middle
// one, and both store it.
template <class Plan>
__device__ void add_int8_values(const PagedAttentionRun& run, const Cut& cut, const Int8Memory<Plan>& memory, int group,
                                Bfloat16* all_sums) {
  constexpr int blocks = Plan::group_blocks;
  const int first = group * (Plan::blocks - Plan::group_blocks);
  const int lane = static_cast<int>(threadIdx.x) % warp, own = static_cast<int>(threadIdx.x) / warp % group_warps;
  Int8Board<Plan>& board = memory.board();
  Turn<Plan::stages> tile;
  Turn<2> turn, buffer;
  // Sixteen neighbouring columns of 32 rows, a row a lane; of even blocks and of odd ones.
  uint32_t places[2];
#pragma unroll
  for (int odd = 0; odd < 2; ++odd) {
    places[odd] = lane / 8 * Plan::box_bytes + int8_place<Plan>(lane % 8, (first + odd) * 4 + own, box_rows) -
                  odd * Plan::block_bytes;
  }
  for (;; turn.next()) {
    wait_for(memory.part_full(turn.stage), turn.parity);
    const Part& part = board.parts[turn.stage];
    if (part.query_rows == 0) return;
    lay_int8_queries<Plan>(run, part, memory, (group + 1) * group_warps + own);
    float sums[blocks][16] = {};
    for (;; tile.next(), buffer.next()) {
      wait_for(memory.full(tile.stage, 0), tile.parity);
      const int rows = board.rows[tile.stage];
      if (rows == 0) break;
      wait_for(memory.probabilities_full(buffer.stage), buffer.parity);
      float factors[8];
      bool changed = false;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        factors[i] = board.factors[buffer.stage][i / 2 * 8 + lane % 4 * 2 + i % 2];
        changed = changed || factors[i] != 1.0f;
      }
      if (__any_sync(0xffffffffu, changed)) {
#pragma unroll
        for (int block = 0; block < blocks; ++block) {
#pragma unroll
          for (int i = 0; i < 16; ++i) sums[block][i] *= factors[i / 4 * 2 + i % 2];
        }
      }
      const uint64_t probabilities = matrix_at(memory.probabilities(buffer.stage), 16, 1024);
#pragma unroll 1
      for (int half = 0; half < 2; ++half) {
        wait_for(memory.full(tile.stage, half), tile.parity);
        if (half * Plan::half < rows) {
          const uint32_t values = memory.tile(tile.stage) + half * Plan::half_bytes;
          uint32_t operands[2][2][4], fours[2][4];
          load_transposed(fours[0], values + places[0]);
#pragma unroll
          for (int block = 0; block < blocks; ++block) {
            const int next = block + 1;
            if (next < blocks) load_transposed(fours[next % 2], values + places[next % 2] + next * Plan::block_bytes);
            if (block >= 2) wait_for_products<1>();
            auto& operand = operands[block % 2];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              const uint32_t four = fours[block % 2][i] ^ 0x80808080u;
              operand[i / 2][i % 2 * 2] = widened_pair<0x4240>(four);
              operand[i / 2][i % 2 * 2 + 1] = widened_pair<0x4341>(four);
            }
            open_products();
#pragma unroll
            for (int step = 0; step < 2; ++step) {
              multiply_rows(sums[block], operand[step],
                            probabilities + static_cast<uint64_t>((half * 2 + step) * 32 / 16));
            }
            close_products();
          }
          wait_for_products<0>();
        }
        __syncwarp();
        if (lane == 0) arrive(memory.free(tile.stage, half));
      }
      if (lane == 0) arrive(memory.probabilities_free(buffer.stage));
    }
    wait_for(memory.full(tile.stage, 1), tile.parity);
    __syncwarp();
    if (lane == 0) {
      arrive(memory.free(tile.stage, 0));
      arrive(memory.free(tile.stage, 1));
    }
    tile.next();
    const int column = first * box_columns + own * 16 + lane / 4 * 2;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int row = i / 2 * 8 + lane % 4 * 2 + i % 2;
      if (row >= part.query_rows) continue;
      Bfloat16* to = all_sums + (part.slot * cut.query_rows + row) * Plan::width + column;
#pragma unroll
      for (int block = 0; block < blocks; ++block) {
        *reinterpret_cast<__nv_bfloat162*>(to + block * box_columns) =
            __floats2bfloat162_rn(sums[block][i / 2 * 4 + i % 2], sums[block][i / 2 * 4 + i % 2 + 2]);
      }
    }
    __syncwarp();
    if (lane == 0) arrive(memory.part_free(turn.stage));
  }
}

// Empty where it is compiled for other GPUs than sm_90a.
template <class Plan>
__global__ void __launch_bounds__(Plan::threads, 1)
    attend_int8_pages(const PagedAttentionRun run, const Cut cut, const __grid_constant__ CUtensorMap states,
                      Bfloat16* all_sums, float2* all_states) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) unsigned char int8_memory[];
  const Int8Memory<Plan> memory{int8_memory, shared_address(int8_memory)};
  if (threadIdx.x == 0) {
    fetch_map(&states);
    make_int8_barriers<Plan>(memory);
  }
  arrive_at_cluster();
  const int role = static_cast<int>(threadIdx.x) / (group_warps * warp);
  if (role == 0) {
    set_registers<Plan::copy_registers, Plan::launch_registers>();
    if (threadIdx.x < warp) {
      bring_int8_parts<Plan>(run, cut, &states, memory);
    } else {
      wait_for_cluster();
    }
  } else if (role == 1) {
    set_registers<Plan::score_registers, Plan::launch_registers>();
    wait_for_cluster();
    wait_for_predecessor();
    let_successor_begin();  // merge_parts.cuh
    take_int8_scores<Plan>(run, cut, memory, all_states);
  } else {
    set_registers<Plan::value_registers, Plan::launch_registers>();
    wait_for_cluster();
    wait_for_predecessor();
    add_int8_values<Plan>(run, cut, memory, role - 2, all_sums);
  }
#endif
}

}  // namespace cepe::ops::cuda
