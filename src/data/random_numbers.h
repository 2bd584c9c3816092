// Random numbers that are pure functions of what they are for (seed, index, ...): the same on every machine, with every
// library and for any number of ranks. No std:: distribution: those differ between libraries.
#pragma once

#include <cstdint>
#include <string_view>

namespace cepe::data {

// SplitMix64's finaliser (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
constexpr uint64_t mix(uint64_t value) {
  value += 0x9e3779b97f4a7c15ULL;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
  return value ^ (value >> 31);
}

// 64 random bits for this purpose; each argument, and their order, counts.
template <class... Parts>
constexpr uint64_t random_bits(uint64_t first, Parts... others) {
  uint64_t bits = mix(first);
  ((bits = mix(bits ^ static_cast<uint64_t>(others))), ...);
  return bits;
}

// FNV-1a, mixed: the same text has the same bits everywhere.
constexpr uint64_t text_bits(std::string_view text) {
  uint64_t bits = 0xcbf29ce484222325ULL;
  for (const char c : text) bits = (bits ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return mix(bits);
}

// From 0 to below `count` (at least 1), by the high half of a product; the bias is below count / 2^64.
constexpr uint64_t below(uint64_t bits, uint64_t count) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<uint64_t>((static_cast<Wide>(bits) * count) >> 64);
}

// In [0, 1), on a grid of 2^-53.
constexpr double fraction(uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1p-53; }

// Where `place` (below `count`) goes in the pseudo-random permutation of [0, count) that `key` names: a Feistel network
// over the next even number of bits, walked until the result is below `count` (on average fewer than four times).
constexpr uint64_t permuted(uint64_t place, uint64_t count, uint64_t key) {
  int half = 1;
  while (half < 32 && (count - 1) >> (2 * half) != 0) ++half;
  const uint64_t mask = (uint64_t{1} << half) - 1;
  do {
    uint64_t left = place >> half, right = place & mask;
    for (uint64_t round = 0; round < 6; ++round) {
      const uint64_t next = left ^ (random_bits(key, round, right) & mask);
      left = right;
      right = next;
    }
    place = (left << half) | right;
  } while (place >= count);
  return place;
}

}  // namespace cepe::data
