// XXH64, a fast checksum (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md), seed 0.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace cepe::formats {

uint64_t xxh64(std::span<const std::byte> bytes);

}  // namespace cepe::formats
