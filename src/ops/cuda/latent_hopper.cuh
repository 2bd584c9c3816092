// Attention whose keys are its values, one part of a unit at a time (page_walk.cuh), on Hopper (sm_90a).
// Bound: the larger of the bytes of the states / bandwidth and 4 * query rows * cached rows * width / 989 TFLOP/s.
// Design: a unit has up to 64 query rows. Their sums [64, width] would fill a multiprocessor's registers at width 1024,
// so a cluster of two thread blocks shares the columns: each loads its half of a tile of 64 cached rows, once, and has
// half of the sums. Roles in a block: a warp copies tiles (latent_tiles.cuh); a warpgroup, which holds the queries,
// takes scores over the block's columns, exchanges them with the other block, and turns them into probabilities
// (latent_softmax.cuh); two warpgroups add up values, half of the columns each. They are told of a tile's probabilities
// when the next tile's scores are done (or wait for their tile): the tensor cores then have values to add up while that
// tile goes through the exchange and the softmax, instead of both products at one time and none after it. (At width 576
// up to 64 query rows are told at once, which is 2 % less there, where shared memory holds two tiles, and 4 to 8 % more
// elsewhere.)
// A part's queries come through the ring of tiles, before its first.
// What holds it back: few query rows and much to read, nothing in the long run (the speed of a copy, H200); of a call
// of 131072 x 1024 with 32 query rows, 72 us, some 10 are its beginning and end, where memory waits, and the merging.
// Many query rows: at width 1024 the scores of a tile, its exchange and its softmax follow one another (550 TFLOP/s,
// against 620 at width 512, which needs no exchange); registers for the next tile's scores beside this one's are
// lacking. Of 32 query rows the tensor cores take 64, half of them for nothing, which counts where sequences share a
// context.
#pragma once

#include "ops/cuda/eight_columns.cuh"
#include "ops/cuda/in_line.cuh"
#include "ops/cuda/latent_queries.cuh"
#include "ops/cuda/latent_softmax.cuh"
#include "ops/cuda/warpgroup.cuh"

namespace cepe::ops::cuda {

// The warpgroup of the scores.
template <class Plan>
__device__ void take_scores(const PagedAttentionRun& run, const Cut& cut, const LatentMemory<Plan>& memory,
                            uint32_t rank, float2* all_states) {
  const int lane = static_cast<int>(threadIdx.x) % warp, own = static_cast<int>(threadIdx.x) / warp % group_warps;
  const float scale = run.scale * 1.4426950408889634f;  // base 2
  Board<Plan>& board = memory.board();
  Turn<Plan::stages> tile;
  Turn<2> turn;
  Turn<Plan::buffers> buffer;
  uint32_t exchange = 0;  // parity
  for (;; turn.next()) {
    wait_for(memory.part_full(turn.stage), turn.parity);
    const Part& part = board.parts[turn.stage];
    const int query_rows = part.query_rows;
    if (query_rows == 0) return;
    const bool has_rows = own * 16 < query_rows;
    uint32_t queries[Plan::held_steps + 1][4];  // one more than there are: there may be none
    take_queries<Plan>(memory, tile, queries);
    tile.next();
    RowState states[Plan::halves];
    uint32_t ready = 0;  // the barrier that tells of probabilities, as yet to be arrived at
    const auto tell = [&] {
      if (ready != 0 && lane == 0) arrive_and_expect(ready, Plan::cluster > 1 && has_rows ? sent_probability_bytes : 0);
      ready = 0;
    };
    for (;; buffer.next()) {
      if (!has_ended(memory.tile_full(tile.stage), tile.parity)) tell();
      wait_for(memory.tile_full(tile.stage), tile.parity);
      const uint32_t free = memory.tile_free(tile.stage);
      const int rows = board.rows[tile.stage];
      if (rows == 0) {
        __syncwarp();
        tell();
        if (lane == 0) arrive(free);
        tile.next();
        break;
      }
      float scores[32] = {};
      const uint64_t keys = matrix_at(memory.tile(tile.stage), 16, Plan::box_bytes);
      open_products();
#pragma unroll
      for (int step = 0; step < Plan::held_steps; ++step) {
        multiply_keys(scores, queries[step], keys + (step / 4 * 1024 + step % 4 * 32) / 16);
      }
      if constexpr (Plan::laid > 0) {
        const uint64_t laid = matrix_at(memory.queries(), 16, 1024);
#pragma unroll
        for (int step = 0; step < Plan::laid * 4; ++step) {
          multiply_keys(scores, laid + (step / 4 * Plan::rows * 128 + step % 4 * 32) / 16,
                        keys + ((Plan::held + step / 4) * 1024 + step % 4 * 32) / 16);
        }
      }
      close_products();
      wait_for_products<0>();
      __syncwarp();
      tell();
      if (lane == 0) arrive(free);
      tile.next();
      uint32_t pairs[Plan::halves][8] = {};
      float factors[Plan::halves] = {};
      if (has_rows) {
        float mine[16];
        if constexpr (Plan::cluster > 1) {
          exchange_scores<Plan>(memory, rank, exchange, scores, mine);
          exchange ^= 1;
          if (rows < Plan::tile) hide_scores(mine, rows);
          factors[0] = soften(mine, scale, states[0], pairs[0]);
        } else {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            take_half(scores, half == 1, mine);
            if (rows < Plan::tile) hide_scores(mine, rows);
            factors[half] = soften(mine, scale, states[half], pairs[half]);
          }
        }
      }
      wait_for(memory.probabilities_free(buffer.stage), buffer.parity ^ 1);
      if (has_rows) {
#pragma unroll
        for (int half = 0; half < Plan::halves; ++half) {
          lay_probabilities<Plan>(memory, buffer.stage, Plan::cluster > 1 ? static_cast<int>(rank) : half, pairs[half],
                                  factors[half]);
        }
        show_to_engines();
        __syncwarp();
        if constexpr (Plan::cluster > 1) send_probabilities<Plan>(memory, rank, buffer.stage, factors[0]);
      }
      __syncwarp();
      ready = memory.probabilities_full(buffer.stage);
      if constexpr (Plan::told_at_once) tell();
    }
#pragma unroll
    for (int half = 0; half < Plan::halves; ++half) {
      float denominator = states[half].denominator;
      denominator += __shfl_xor_sync(0xffffffffu, denominator, 1);
      denominator += __shfl_xor_sync(0xffffffffu, denominator, 2);
      const int row = own * 16 + lane / 4 + (Plan::cluster > 1 ? static_cast<int>(rank) : half) * 8;
      if (lane % 4 == 0 && row < query_rows) {
        all_states[part.slot * cut.query_rows + row] = make_float2(states[half].maximum, denominator);
      }
    }
    __syncwarp();
    if (lane == 0) arrive(memory.part_free(turn.stage));
  }
}

// A warpgroup of the sums of `blocks` * 64 columns, from the thread block's column first * 64.
template <class Plan, int blocks, int first>
__device__ void add_values(const Cut& cut, const LatentMemory<Plan>& memory, uint32_t rank, Bfloat16* all_sums) {
  const int lane = static_cast<int>(threadIdx.x) % warp, own = static_cast<int>(threadIdx.x) / warp % group_warps;
  constexpr int pieces = blocks % 2 == 0 ? blocks / 2 : blocks,
                columns = blocks * box_columns / pieces;  // of a product
  Board<Plan>& board = memory.board();
  Turn<Plan::stages> tile;
  Turn<2> turn;
  Turn<Plan::buffers> buffer;
  for (;; turn.next()) {
    wait_for(memory.part_full(turn.stage), turn.parity);
    const Part& part = board.parts[turn.stage];
    if (part.query_rows == 0) return;
    float sums[pieces][columns / 2] = {};
    wait_for(memory.tile_full(tile.stage), tile.parity);  // the queries: so is the stage's last phase over
    __syncwarp();
    if (lane == 0) arrive(memory.tile_free(tile.stage));
    tile.next();
    for (;; buffer.next(), tile.next()) {
      wait_for(memory.tile_full(tile.stage), tile.parity);
      if (board.rows[tile.stage] == 0) break;
      wait_for(memory.probabilities_full(buffer.stage), buffer.parity);
      const float upper = board.factors[buffer.stage][own * 16 + lane / 4];
      const float lower = board.factors[buffer.stage][own * 16 + lane / 4 + 8];
      if (__any_sync(0xffffffffu, upper != 1.0f || lower != 1.0f)) {
#pragma unroll
        for (int piece = 0; piece < pieces; ++piece) {
#pragma unroll
          for (int i = 0; i < columns / 2; ++i) sums[piece][i] *= i % 4 < 2 ? upper : lower;
        }
      }
      if constexpr (Plan::cluster > 1) show_to_engines();  // what the other block sent
      const uint64_t probabilities = matrix_at(memory.probabilities(buffer.stage), 16, 1024);
      const uint64_t values = matrix_at(memory.tile(tile.stage) + first * 1024, 1024, Plan::box_bytes);
      open_products();
#pragma unroll
      for (int step = 0; step < Plan::tile / 16; ++step) {
#pragma unroll
        for (int piece = 0; piece < pieces; ++piece) {
          multiply_values(sums[piece], probabilities + step * 32 / 16,
                          values + (step * 2 * Plan::box_bytes + piece * columns / box_columns * 1024) / 16);
        }
      }
      close_products();
      wait_for_products<0>();
      __syncwarp();
      if (lane == 0) {
        arrive(memory.tile_free(tile.stage));
        arrive(memory.probabilities_free(buffer.stage));
        if constexpr (Plan::cluster > 1) arrive_there(place_in(memory.probabilities_free(buffer.stage), rank ^ 1));
      }
    }
    __syncwarp();
    if (lane == 0) arrive(memory.tile_free(tile.stage));
    tile.next();
    const int column = static_cast<int>(rank) * Plan::columns + first * box_columns + lane % 4 * 8;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = own * 16 + lane / 4 + half * 8;
      Bfloat16* to = all_sums + (part.slot * cut.query_rows + row) * Plan::width + column;
#pragma unroll
      for (int i = 0; i < blocks * 8; i += 4) {
        const uint4 eight = eight_columns(&sums[i * 8 / columns][i * 8 % columns / 2 + half * 2]);
        if (row < part.query_rows) *reinterpret_cast<uint4*>(to + i * 8) = eight;
      }
    }
    __syncwarp();
    if (lane == 0) arrive(memory.part_free(turn.stage));
  }
}

// Empty where it is compiled for other GPUs than sm_90a.
template <class Plan>
__global__ void __launch_bounds__(Plan::threads, 1)
    attend_latent_pages(const PagedAttentionRun run, const Cut cut, const __grid_constant__ CUtensorMap states,
                        const __grid_constant__ CUtensorMap queries, Bfloat16* all_sums, float2* all_states) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) unsigned char latent_memory[];
  const LatentMemory<Plan> memory{latent_memory, shared_address(latent_memory)};
  const uint32_t rank = Plan::cluster > 1 ? rank_in_cluster() : 0;
  if (threadIdx.x == 0) {
    fetch_map(&states);
    fetch_map(&queries);
    make_barriers<Plan>(memory);
  }
  arrive_at_cluster();
  const int role = static_cast<int>(threadIdx.x) / (group_warps * warp);
  if (role == 0) {
    set_registers<Plan::copy_registers, Plan::launch_registers>();
    if (threadIdx.x < warp) {
      bring_parts<Plan>(run, cut, {&states, &queries}, memory, rank);
    } else {
      wait_for_cluster();
    }
  } else if (role == 1) {
    set_registers<Plan::score_registers, Plan::launch_registers>();
    wait_for_cluster();
    wait_for_predecessor();  // what it reads may be written from here on
    let_successor_begin();   // merge_parts.cuh
    take_scores<Plan>(run, cut, memory, rank, all_states);
  } else if (role == 2) {
    set_registers<Plan::first_registers, Plan::launch_registers>();
    wait_for_cluster();
    wait_for_predecessor();
    add_values<Plan, Plan::first_blocks, 0>(cut, memory, rank, all_sums);
  } else {
    set_registers<Plan::second_registers, Plan::launch_registers>();
    wait_for_cluster();
    wait_for_predecessor();
    add_values<Plan, Plan::second_blocks, Plan::first_blocks>(cut, memory, rank, all_sums);
  }
  if constexpr (Plan::cluster > 1) {
    arrive_at_cluster();
    wait_for_cluster();  // the other block may still send to this one's barriers
  }
#endif
}

}  // namespace cepe::ops::cuda
