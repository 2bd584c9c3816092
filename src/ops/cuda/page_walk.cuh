// How the work of a ragged batch is cut: a unit is a block of query rows of one sequence and group over all of that
// sequence's pages; its pages are cut into tiles. All tiles of all units stand in one row (sequence by sequence, group
// by group, block by block), of which each thread block takes an equal share, wherever units begin and end: so every
// multiprocessor has the same to read however ragged the batch is. The part of a unit that a thread block has goes into
// slot (thread block + unit) of the workspace, which no other part has, since from one part to the next at least one
// of the two grows.
#pragma once

#include <cstdint>

#include "ops/cuda/kernels.h"
#include "ops/cuda/warp.cuh"

namespace cepe::ops::cuda {

struct Cut {
  int query_rows;      // of a unit
  int tile_rows;       // cached rows of a tile
  int tiles_per_page;  // short pages have empty tiles
  // Thread blocks a little fewer where they then take whole units, or equal shares of one: units of one sequence are
  // then at the same page at the same time, and it comes from memory once.
  bool in_step = false;
};

// Of numbers that are not negative: division of 64 bits takes hundreds of cycles, and few batches need it.
__device__ inline int64_t quotient(int64_t a, int64_t b) {
  return (a | b) >> 32 == 0 ? static_cast<uint32_t>(a) / static_cast<uint32_t>(b) : a / b;
}

// What lies before a sequence, or in all of them.
struct Amount {
  int64_t tiles = 0;
  int units = 0;
};

struct SequenceWork {
  int first_query, query_rows, blocks;  // blocks of query rows
  int first_page, tiles;                // tiles of each unit
  int units;
};

__device__ inline SequenceWork work_of(const PagedAttentionRun& run, const Cut& cut, int sequence) {
  SequenceWork work;
  work.first_query = run.first_query[sequence];
  work.query_rows = run.first_query[sequence + 1] - work.first_query;
  work.blocks = (work.query_rows + cut.query_rows - 1) / cut.query_rows;
  work.first_page = run.first_page[sequence];
  work.tiles = (run.first_page[sequence + 1] - work.first_page) * cut.tiles_per_page;
  work.units = work.blocks * static_cast<int>(run.groups);
  return work;
}

// Before `stop` sequences; every lane of a warp calls it and gets it.
__device__ inline Amount amount_before(const PagedAttentionRun& run, const Cut& cut, int stop) {
  Amount sum;
  if (stop == 0) return {};
  if (stop == 1) {  // the usual one: no lanes need to meet
    const SequenceWork work = work_of(run, cut, 0);
    return {int64_t{work.units} * work.tiles, work.units};
  }
  for (int sequence = static_cast<int>(threadIdx.x) % warp; sequence < stop; sequence += warp) {
    const SequenceWork work = work_of(run, cut, sequence);
    sum.tiles += int64_t{work.units} * work.tiles;
    sum.units += work.units;
  }
  for (int other = warp / 2; other > 0; other /= 2) {
    sum.tiles += __shfl_xor_sync(0xffffffffu, sum.tiles, other);
    sum.units += __shfl_xor_sync(0xffffffffu, sum.units, other);
  }
  return sum;
}

// The sequence of tile `tile`, and what lies before it; every lane calls it and gets it. There is such a tile.
__device__ inline int sequence_of(const PagedAttentionRun& run, const Cut& cut, int64_t tile, Amount& before) {
  before = {};
  if (run.sequences == 1) return 0;
  const int lane = static_cast<int>(threadIdx.x) % warp;
  for (int first = 0;; first += warp) {
    Amount own;
    if (first + lane < run.sequences) {
      const SequenceWork work = work_of(run, cut, first + lane);
      own = {int64_t{work.units} * work.tiles, work.units};
    }
    Amount up_to = own;
    for (int other = 1; other < warp; other *= 2) {
      const int64_t tiles = __shfl_up_sync(0xffffffffu, up_to.tiles, other);
      const int units = __shfl_up_sync(0xffffffffu, up_to.units, other);
      if (lane >= other) up_to = {up_to.tiles + tiles, up_to.units + units};
    }
    const unsigned beyond = __ballot_sync(0xffffffffu, before.tiles + up_to.tiles > tile);
    const int chosen = beyond ? __ffs(static_cast<int>(beyond)) - 1 : warp - 1;
    const Amount with_it = {__shfl_sync(0xffffffffu, up_to.tiles, chosen),
                            __shfl_sync(0xffffffffu, up_to.units, chosen)};
    if (!beyond) {
      before = {before.tiles + with_it.tiles, before.units + with_it.units};
      continue;
    }
    before.tiles += with_it.tiles - __shfl_sync(0xffffffffu, own.tiles, chosen);
    before.units += with_it.units - __shfl_sync(0xffffffffu, own.units, chosen);
    return first + chosen;
  }
}

// Thread blocks that have a tile: no block between two that have one goes without.
__device__ inline int64_t busy_blocks(const Cut& cut, const Amount& all, int64_t blocks) {
  if (cut.in_step && all.units > 0) {
    const int units = all.units, most = static_cast<int>(blocks), turns = (units + most - 1) / most;
    const int fewer = turns == 1 ? most / units * units : units % turns == 0 ? units / turns : 0;
    if (fewer * 16 >= most * 15) blocks = fewer;
  }
  return all.tiles < blocks ? all.tiles : blocks;
}
// The first tile of thread block `block` of `blocks`, and the thread block that has a tile.
__device__ inline int64_t first_tile_of(int64_t total, int64_t block, int64_t blocks) {
  return quotient(total * block, blocks);
}
__device__ inline int block_of(int64_t total, int64_t tile, int64_t blocks) {
  return static_cast<int>(quotient((tile + 1) * blocks - 1, total));
}

// The tiles of thread block `block` of `blocks`, among all; none for those without work. Every lane calls it.
struct Share {
  int64_t begin = 0, end = 0;
};
__device__ inline Share share_of(const PagedAttentionRun& run, const Cut& cut, int64_t block, int64_t blocks) {
  const Amount all = amount_before(run, cut, static_cast<int>(run.sequences));
  const int64_t busy = busy_blocks(cut, all, blocks);
  if (block >= busy) return {};
  return {first_tile_of(all.tiles, block, busy), first_tile_of(all.tiles, block + 1, busy)};
}

// A part: tiles [first_tile, first_tile + tiles) of a unit.
struct Part {
  int first_query, query_rows;  // rows of the packed queries, at most cut.query_rows
  int group, first_page, first_tile, tiles;
  int64_t slot;
};

// The one that begins at tile `begin` of all, of thread block `block`, whose share ends at `end`; every lane calls it.
__device__ inline Part part_at(const PagedAttentionRun& run, const Cut& cut, int64_t block, int64_t begin,
                               int64_t end) {
  Amount before;
  const int sequence = sequence_of(run, cut, begin, before);
  const SequenceWork work = work_of(run, cut, sequence);
  const int64_t within = begin - before.tiles;
  const int unit = static_cast<int>(quotient(within, work.tiles));
  Part part;
  part.first_tile = static_cast<int>(within - int64_t{unit} * work.tiles);
  part.tiles = static_cast<int>(min(int64_t{work.tiles - part.first_tile}, end - begin));
  part.group = unit / work.blocks;
  const int first = unit % work.blocks * cut.query_rows;
  part.first_query = work.first_query + first;
  part.query_rows = min(cut.query_rows, work.query_rows - first);
  part.first_page = work.first_page;
  part.slot = block + before.units + unit;
  return part;
}

}  // namespace cepe::ops::cuda
