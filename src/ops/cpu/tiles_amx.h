// The tiles of tile_kernel.h and the three kernels of int8 by AMX (AMX-TILE, AMX-BF16, AMX-INT8).
// Included only by the file compiled for that level.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace cepe::ops::cpu {

struct TilesAmx {
  // All eight tiles of this thread: 16 rows of 64 bytes.
  static void begin() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    _tile_loadconfig(&config);
  }
  static void end() { _tile_release(); }

  // The instructions name their tiles: the intrinsics want digits.
  template <int tile>
  static void zero() {
    static_assert(tile < 4);
    if constexpr (tile == 0) _tile_zero(0);
    if constexpr (tile == 1) _tile_zero(1);
    if constexpr (tile == 2) _tile_zero(2);
    if constexpr (tile == 3) _tile_zero(3);
  }
  template <int tile>
  static void load(const void* from, int64_t stride) {
    // GCC's intrinsic does not say that it reads memory: stores before it must not move behind.
    asm volatile("" ::: "memory");
    if constexpr (tile == 0) _tile_loadd(0, from, stride);
    if constexpr (tile == 1) _tile_loadd(1, from, stride);
    if constexpr (tile == 2) _tile_loadd(2, from, stride);
    if constexpr (tile == 3) _tile_loadd(3, from, stride);
    if constexpr (tile == 4) _tile_loadd(4, from, stride);
    if constexpr (tile == 5) _tile_loadd(5, from, stride);
    if constexpr (tile == 6) _tile_loadd(6, from, stride);
    if constexpr (tile == 7) _tile_loadd(7, from, stride);
  }
  template <int tile>
  static void store(void* to, int64_t stride) {
    static_assert(tile < 4);
    if constexpr (tile == 0) _tile_stored(0, to, stride);
    if constexpr (tile == 1) _tile_stored(1, to, stride);
    if constexpr (tile == 2) _tile_stored(2, to, stride);
    if constexpr (tile == 3) _tile_stored(3, to, stride);
  }
  template <int sums, int rows, int columns>
  static void multiply() {
    static_assert(sums == (rows - 4) * 2 + columns - 6);
    if constexpr (sums == 0) _tile_dpbf16ps(0, 4, 6);
    if constexpr (sums == 1) _tile_dpbf16ps(1, 4, 7);
    if constexpr (sums == 2) _tile_dpbf16ps(2, 5, 6);
    if constexpr (sums == 3) _tile_dpbf16ps(3, 5, 7);
  }
};

struct TilesAmxInt8 : TilesAmx {
  template <int sums, int rows, int columns>
  static void multiply() {
    static_assert(sums == (rows - 4) * 2 + columns - 6);
    if constexpr (sums == 0) _tile_dpbssd(0, 4, 6);
    if constexpr (sums == 1) _tile_dpbssd(1, 4, 7);
    if constexpr (sums == 2) _tile_dpbssd(2, 5, 6);
    if constexpr (sums == 3) _tile_dpbssd(3, 5, 7);
  }
};

struct TilesAmxMixed : TilesAmx {  // rows signed, columns unsigned
  template <int sums, int rows, int columns>
  static void multiply() {
    static_assert(sums == (rows - 4) * 2 + columns - 6);
    if constexpr (sums == 0) _tile_dpbsud(0, 4, 6);
    if constexpr (sums == 1) _tile_dpbsud(1, 4, 7);
    if constexpr (sums == 2) _tile_dpbsud(2, 5, 6);
    if constexpr (sums == 3) _tile_dpbsud(3, 5, 7);
  }
};

struct TilesAmxWeights : TilesAmx {  // rows unsigned, columns signed
  template <int sums, int rows, int columns>
  static void multiply() {
    static_assert(sums == (rows - 4) * 2 + columns - 6);
    if constexpr (sums == 0) _tile_dpbusd(0, 4, 6);
    if constexpr (sums == 1) _tile_dpbusd(1, 4, 7);
    if constexpr (sums == 2) _tile_dpbusd(2, 5, 6);
    if constexpr (sums == 3) _tile_dpbusd(3, 5, 7);
  }
};

}  // namespace cepe::ops::cpu
