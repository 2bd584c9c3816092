#include "formats/xxh64.h"

#include <array>
#include <bit>
#include <cstring>

namespace cepe::formats {
namespace {

constexpr uint64_t prime1 = 0x9e3779b185ebca87ULL, prime2 = 0xc2b2ae3d27d4eb4fULL, prime3 = 0x165667b19e3779f9ULL,
                   prime4 = 0x85ebca77c2b2ae63ULL, prime5 = 0x27d4eb2f165667c5ULL;

template <class T>
uint64_t take(std::span<const std::byte>& bytes) {
  T value = 0;
  std::memcpy(&value, bytes.data(), sizeof(T));
  bytes = bytes.subspan(sizeof(T));
  return value;
}

uint64_t round(uint64_t lane, uint64_t input) { return std::rotl(lane + input * prime2, 31) * prime1; }

// Stripes of 32 bytes into four lanes, and these into one.
uint64_t stripes(std::span<const std::byte>& bytes) {
  std::array<uint64_t, 4> lanes{prime1 + prime2, prime2, 0, 0 - prime1};
  while (bytes.size() >= 32) {
    for (uint64_t& lane : lanes) lane = round(lane, take<uint64_t>(bytes));
  }
  uint64_t hash = std::rotl(lanes[0], 1) + std::rotl(lanes[1], 7) + std::rotl(lanes[2], 12) + std::rotl(lanes[3], 18);
  for (const uint64_t lane : lanes) hash = (hash ^ round(0, lane)) * prime1 + prime4;
  return hash;
}

}  // namespace

uint64_t xxh64(std::span<const std::byte> bytes) {
  const uint64_t size = bytes.size();
  uint64_t hash = (size >= 32 ? stripes(bytes) : prime5) + size;
  while (bytes.size() >= 8) hash = std::rotl(hash ^ round(0, take<uint64_t>(bytes)), 27) * prime1 + prime4;
  if (bytes.size() >= 4) hash = std::rotl(hash ^ (take<uint32_t>(bytes) * prime1), 23) * prime2 + prime3;
  while (!bytes.empty()) hash = std::rotl(hash ^ (take<uint8_t>(bytes) * prime5), 11) * prime1;
  hash = (hash ^ (hash >> 33)) * prime2;
  hash = (hash ^ (hash >> 29)) * prime3;
  return hash ^ (hash >> 32);
}

}  // namespace cepe::formats
