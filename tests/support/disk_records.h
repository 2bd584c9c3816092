// Small records for tests of the disk tier: the values follow from a number, so that a wrong one is seen.
#pragma once

#include <cstddef>
#include <random>
#include <vector>

#include "base/files.h"
#include "context/disk_tier.h"

namespace cepe::test {

constexpr context::RecordShape small_shape{context::RecordShape::Type::float32, 4, 8};

// Memory where there is such a folder: thousands of syncs cost nothing there.
inline base::Path quick_folder() {
  const base::Path memory = "/dev/shm";
  std::error_code none;
  return std::filesystem::is_directory(memory, none) ? memory : std::filesystem::temp_directory_path();
}

inline context::ChunkKey record_key(int number) { return context::key_of(std::vector<text::Token>{number}, {}); }

inline std::vector<std::byte> record_values(int number) {
  std::mt19937 random(static_cast<unsigned>(number));
  std::vector<std::byte> values(small_shape.payload_bytes());
  for (std::byte& value : values) value = static_cast<std::byte>(random());
  return values;
}

inline bool put(context::DiskTier& tier, const std::vector<int>& numbers, const std::string& source = "",
                int64_t keep_since = context::wall_clock()) {
  std::vector<std::vector<std::byte>> values;
  std::vector<context::DiskTier::Item> items;
  for (const int number : numbers) values.push_back(record_values(number));
  for (size_t i = 0; i < numbers.size(); ++i) items.push_back({record_key(numbers[i]), small_shape, values[i], source});
  return tier.write(items, keep_since);
}

enum class Found { right, wrong, nothing };
inline Found find(context::DiskTier& tier, int number) {
  std::vector<std::byte> values(small_shape.payload_bytes());
  if (!tier.read(record_key(number), small_shape, values)) return Found::nothing;
  return values == record_values(number) ? Found::right : Found::wrong;
}
inline bool has(context::DiskTier& tier, int number) { return find(tier, number) == Found::right; }

// Chunks kept in a folder that need not be there yet.
inline int64_t kept_chunks(const base::Path& folder) {
  return base::may_be_there(folder) ? context::DiskTier(context::DiskTierOptions{folder}).usage().chunks : 0;
}

}  // namespace cepe::test
