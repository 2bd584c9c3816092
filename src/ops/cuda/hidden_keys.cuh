// Of a tile of scores that is wider than what is left of the keys.
#pragma once

#include <cmath>

namespace cepe::ops::cuda {

// Scores [64, 128] as wgmma leaves them with a warpgroup: keys from the tile's `rows`-th on count for nothing.
__device__ inline void hide_keys(float (&scores)[64], int rows) {
  const int first = static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int i = 0; i < 64; ++i) {
    if (first + i / 4 * 8 + i % 2 >= rows) scores[i] = -INFINITY;
  }
}

}  // namespace cepe::ops::cuda
