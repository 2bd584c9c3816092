// The bytes of keys and values in 8 bits, block by block, wherever they stand.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/int8_context.h"

namespace cepe::test {

inline std::vector<uint8_t> bytes_of(const ops::Int8Context& context) {
  std::vector<uint8_t> bytes;
  if (context.blocks.empty()) return bytes;
  const int64_t each = context.bytes() / static_cast<int64_t>(context.blocks.size());
  for (const uint8_t* block : context.blocks) bytes.insert(bytes.end(), block, block + each);
  return bytes;
}

}  // namespace cepe::test
