// A store of encoded chunks that several machines share, behind all other tiers.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "context/record.h"

namespace cepe::context {

// Any thread at any time. What goes wrong is said once (warning) and then looks like an empty tier. After an interrupt
// nothing more is asked of it: `write` returns and `read` throws Interrupted.
class RemoteTier {
 public:
  struct Wanted {
    ChunkKey key;
    RecordShape shape;
    std::span<std::byte> values;  // to fill
  };
  struct Item {
    ChunkKey key;
    RecordShape shape;
    std::span<const std::byte> values;
  };
  virtual ~RemoteTier() = default;
  // Which of them were there, whole; the values of the others mean nothing.
  virtual std::vector<bool> read(std::span<const Wanted> wanted) = 0;
  virtual void write(std::span<const Item> items) = 0;
};

}  // namespace cepe::context
