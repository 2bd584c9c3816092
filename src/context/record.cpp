#include "context/record.h"

#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>

namespace cepe::context {
namespace {

static_assert(std::endian::native == std::endian::little, "records are written as they stand in memory");

constexpr char magic[8] = {'C', 'E', 'P', 'E', 'P', 'A', 'G', 'E'};
constexpr uint32_t version = 1;

struct Header {
  char magic[8];
  uint32_t version, type;
  uint64_t rows, width;
  ChunkKey key;
  base::Digest checksum;
};
static_assert(sizeof(Header) == 96);

Header make_header(const ChunkKey& key, const RecordShape& shape) {
  Header header{};
  std::memcpy(header.magic, magic, sizeof magic);
  header.version = version;
  header.type = static_cast<uint32_t>(shape.type);
  header.rows = static_cast<uint64_t>(shape.rows);
  header.width = static_cast<uint64_t>(shape.width);
  header.key = key;
  return header;
}

std::span<const std::byte> bytes_of(const Header& header) { return std::as_bytes(std::span(&header, 1)); }

// Of a header whose checksum is still zero.
base::Digest checksum_of(const Header& header, std::span<const std::byte> values) {
  base::Sha256 hash;
  hash.update(bytes_of(header));
  hash.update(values);
  return hash.finish();
}

// False at the end of the file (errno 0) or where it cannot be read.
bool read_all(int descriptor, std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::read(descriptor, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count == 0) errno = 0;
    if (count <= 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
  return true;
}

bool write_all(int descriptor, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(descriptor, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
  return true;
}

std::string unreadable() { return errno ? std::string("cannot be read: ") + std::strerror(errno) : "ends too early"; }

std::string difference(const Header& found, const Header& expected) {
  if (std::memcmp(found.magic, expected.magic, sizeof magic) != 0) return "not a record of encoded text";
  if (found.version != expected.version) {
    return "a record of format version " + std::to_string(found.version) + ", not " + std::to_string(expected.version);
  }
  if (found.key != expected.key) return "the record of another chunk";
  if (found.type != expected.type || found.rows != expected.rows || found.width != expected.width) {
    const auto shape = [](const Header& header) {
      return std::to_string(header.rows) + " x " + std::to_string(header.width) + " values of type " +
             std::to_string(header.type);
    };
    return "holds " + shape(found) + ", not " + shape(expected);
  }
  return "";
}

}  // namespace

size_t RecordShape::payload_bytes() const {
  return static_cast<size_t>(rows) * static_cast<size_t>(width) * (type == Type::bfloat16 ? 2 : 4);
}

size_t RecordShape::file_bytes() const { return sizeof(Header) + payload_bytes(); }

std::string read_record(int descriptor, const ChunkKey& key, const RecordShape& shape, std::span<std::byte> values) {
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) return unreadable();
  if (!S_ISREG(status.st_mode)) return "not a regular file";
  Header found{};
  const Header expected = make_header(key, shape);
  if (!read_all(descriptor, std::as_writable_bytes(std::span(&found, 1)))) return unreadable();
  if (std::string wrong = difference(found, expected); !wrong.empty()) return wrong;
  if (static_cast<size_t>(status.st_size) != shape.file_bytes()) {
    return std::to_string(status.st_size) + " bytes long, not " + std::to_string(shape.file_bytes());
  }
  if (!read_all(descriptor, values)) return unreadable();
  return found.checksum == checksum_of(expected, values) ? "" : "its bytes contradict its checksum";
}

bool write_record(int descriptor, const ChunkKey& key, const RecordShape& shape, std::span<const std::byte> values) {
  Header header = make_header(key, shape);
  header.checksum = checksum_of(header, values);
  return write_all(descriptor, bytes_of(header)) && write_all(descriptor, values);
}

}  // namespace cepe::context
