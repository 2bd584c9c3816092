#include "context/record.h"

#include <xxhash.h>

#include <bit>
#include <cstring>

namespace cepe::context {
namespace {

static_assert(std::endian::native == std::endian::little, "records are written as they stand in memory");

constexpr char magic[8] = {'C', 'E', 'P', 'E', 'P', 'A', 'G', 'E'};
constexpr uint32_t version = 2;
constexpr uint64_t most_rows = uint64_t{1} << 24, most_width = uint64_t{1} << 20;

struct Head {
  char magic[8];
  uint32_t version, type;
  uint64_t rows, width;
  ChunkKey key;
  uint64_t value_bytes;
  uint32_t source_bytes;
  std::byte zeros[4];
  std::array<std::byte, 16> checksum;
  std::byte more_zeros[16];
  std::array<std::byte, 16> head_checksum;
};
static_assert(sizeof(Head) == record_head_bytes);

std::array<std::byte, 16> bytes_of_hash(XXH128_hash_t hash) {
  std::array<std::byte, 16> bytes;
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, hash);
  std::memcpy(bytes.data(), &canonical, bytes.size());
  return bytes;
}

std::array<std::byte, 16> checksum_of(std::span<const std::byte> values, std::string_view source) {
  XXH3_state_t* state = XXH3_createState();
  XXH3_128bits_reset(state);
  XXH3_128bits_update(state, values.data(), values.size());
  XXH3_128bits_update(state, source.data(), source.size());
  const auto checksum = bytes_of_hash(XXH3_128bits_digest(state));
  XXH3_freeState(state);
  return checksum;
}

std::array<std::byte, 16> checksum_of(const Head& head) {
  return bytes_of_hash(XXH3_128bits(&head, offsetof(Head, head_checksum)));
}

size_t padded(size_t bytes) { return (bytes + record_alignment - 1) / record_alignment * record_alignment; }

}  // namespace

size_t RecordShape::payload_bytes() const {
  const size_t values = static_cast<size_t>(rows) * static_cast<size_t>(width);
  if (type == Type::bytes) return values;
  if (type == Type::int8) return values + static_cast<size_t>(rows) * sizeof(float);
  return values * (type == Type::bfloat16 ? 2 : 4);
}

std::string to_string(const RecordShape& shape) {
  const char* names[] = {"bfloat16", "float32", "int8", "byte"};
  return std::to_string(shape.rows) + " x " + std::to_string(shape.width) + " " +
         names[static_cast<uint32_t>(shape.type) - 1] + " values";
}

size_t RecordInfo::record_bytes() const { return padded(record_head_bytes + shape.payload_bytes() + source_bytes); }

size_t record_bytes(const RecordShape& shape, std::string_view source) {
  return padded(record_head_bytes + shape.payload_bytes() + std::min(source.size(), longest_source));
}

RecordHead make_head(const ChunkKey& key, const RecordShape& shape, std::span<const std::byte> values,
                     std::string_view source) {
  source = source.substr(0, longest_source);
  Head head{};
  std::memcpy(head.magic, magic, sizeof magic);
  head.version = version;
  head.type = static_cast<uint32_t>(shape.type);
  head.rows = static_cast<uint64_t>(shape.rows);
  head.width = static_cast<uint64_t>(shape.width);
  head.key = key;
  head.value_bytes = values.size();
  head.source_bytes = static_cast<uint32_t>(source.size());
  head.checksum = checksum_of(values, source);
  head.head_checksum = checksum_of(head);
  return std::bit_cast<RecordHead>(head);
}

std::string make_tail(const RecordShape& shape, std::string_view source) {
  std::string tail(source.substr(0, longest_source));
  tail.resize(record_bytes(shape, source) - record_head_bytes - shape.payload_bytes());
  return tail;
}

std::optional<RecordInfo> read_head(std::span<const std::byte> bytes) {
  if (bytes.size() < record_head_bytes) return std::nullopt;
  Head head;
  std::memcpy(&head, bytes.data(), sizeof head);
  if (std::memcmp(head.magic, magic, sizeof magic) != 0 || head.version != version) return std::nullopt;
  if (head.head_checksum != checksum_of(head)) return std::nullopt;
  if (!RecordShape::is_type(head.type) || head.rows > most_rows || head.width > most_width) return std::nullopt;
  RecordInfo info{
      head.key,
      {static_cast<RecordShape::Type>(head.type), static_cast<int64_t>(head.rows), static_cast<int64_t>(head.width)},
      head.source_bytes,
      head.checksum};
  if (head.value_bytes != info.shape.payload_bytes() || info.source_bytes > longest_source) return std::nullopt;
  return info;
}

std::string difference(const RecordInfo& found, const ChunkKey& key, const RecordShape& shape) {
  if (found.key != key) return "the record of another chunk";
  if (found.shape != shape) return "holds " + to_string(found.shape) + ", not " + to_string(shape);
  return "";
}

bool agrees(const RecordInfo& info, std::span<const std::byte> values, std::string_view source) {
  return info.checksum == checksum_of(values, source);
}

}  // namespace cepe::context
