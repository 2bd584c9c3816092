#include "formats/zip.h"

#include <zlib.h>

#include <algorithm>
#include <limits>
#include <unordered_set>

#include "formats/byte_reader.h"

namespace cepe::formats {
namespace {

constexpr uint32_t local_signature = 0x04034b50;
constexpr uint32_t central_signature = 0x02014b50;
constexpr uint32_t end_signature = 0x06054b50;
constexpr uint32_t end64_signature = 0x06064b50;
constexpr uint32_t locator64_signature = 0x07064b50;
constexpr size_t end_size = 22;
constexpr size_t locator64_size = 20;
constexpr size_t central_size = 46;
constexpr uint16_t zip64_extra = 1;
constexpr uint64_t max_deflate_ratio = 1032;  // https://zlib.net/zlib_tech.html, "Maximum Compression Factor"
constexpr uint32_t in_zip64 = 0xffffffffu;

struct Directory {
  uint64_t entries;
  uint64_t offset;
  uint64_t size;
};

std::span<const std::byte> from(std::span<const std::byte> archive, uint64_t offset, const std::string& where,
                                const char* what) {
  if (offset > archive.size()) {
    fail_damaged(where, std::string(what) + " at byte " + std::to_string(offset) + ", beyond the end of the file");
  }
  return archive.subspan(offset);
}

void expect_signature(ByteReader& reader, uint32_t wanted, const char* what) {
  if (reader.read<uint32_t>(what) != wanted) fail_damaged(reader.where(), std::string(what) + " lacks its signature");
}

// The end record is the last thing but a comment of at most 65535 bytes.
size_t find_end(std::span<const std::byte> archive, const std::string& where) {
  const size_t reach = std::min<size_t>(archive.size(), end_size + 65535);
  for (size_t back = end_size; back <= reach; ++back) {
    ByteReader reader(archive.subspan(archive.size() - back), where);
    if (reader.read<uint32_t>("end record") != end_signature) continue;
    reader.take(16, "end record");
    if (reader.read<uint16_t>("end record") == back - end_size) return archive.size() - back;
  }
  fail_damaged(where, "no zip end record");
}

Directory read_end64(std::span<const std::byte> archive, size_t end, const std::string& where) {
  if (end < locator64_size) fail_damaged(where, "no room for the zip64 locator");
  ByteReader locator(archive.subspan(end - locator64_size, locator64_size), where);
  expect_signature(locator, locator64_signature, "zip64 locator");
  locator.take(4, "zip64 locator");
  const auto offset = locator.read<uint64_t>("zip64 locator");
  ByteReader reader(from(archive, offset, where, "zip64 end record"), where);
  expect_signature(reader, end64_signature, "zip64 end record");
  reader.take(28, "zip64 end record");  // its size, versions, disks, entries on this disk
  Directory directory{};
  directory.entries = reader.read<uint64_t>("zip64 end record");
  directory.size = reader.read<uint64_t>("zip64 end record");
  directory.offset = reader.read<uint64_t>("zip64 end record");
  return directory;
}

Directory read_end(std::span<const std::byte> archive, const std::string& where) {
  const size_t end = find_end(archive, where);
  ByteReader reader(archive.subspan(end), where);
  reader.take(4, "end record");
  const auto disk = reader.read<uint16_t>("end record");
  const auto directory_disk = reader.read<uint16_t>("end record");
  reader.take(2, "end record");
  Directory directory{};
  directory.entries = reader.read<uint16_t>("end record");
  directory.size = reader.read<uint32_t>("end record");
  directory.offset = reader.read<uint32_t>("end record");
  if (directory.entries == 0xffff || directory.size == in_zip64 || directory.offset == in_zip64) {
    return read_end64(archive, end, where);
  }
  if (disk != 0 || directory_disk != 0) fail_unsupported(where, "a zip archive over several disks");
  return directory;
}

struct CentralRecord {
  ZipEntry entry;
  uint64_t packed_size = 0;
  uint64_t local_offset = 0;
  uint16_t flags = 0;
  uint16_t method = 0;
};

// Sizes and offset that do not fit 32 bits stand in the zip64 extra field, in this order, each only if it is needed.
void read_zip64_extra(std::span<const std::byte> extra, CentralRecord& record, const std::string& where) {
  ByteReader reader(extra, where);
  while (reader.left() >= 4) {
    const auto kind = reader.read<uint16_t>("extra field");
    const auto size = reader.read<uint16_t>("extra field");
    const auto content = reader.take(size, "extra field");
    if (kind != zip64_extra) continue;
    ByteReader values(content, where);
    for (uint64_t* value : {&record.entry.size, &record.packed_size, &record.local_offset}) {
      if (*value == in_zip64) *value = values.read<uint64_t>("zip64 extra field");
    }
    return;
  }
}

CentralRecord read_central(ByteReader& reader) {
  CentralRecord record;
  const char* what = "central directory";
  expect_signature(reader, central_signature, what);
  reader.take(4, what);  // versions
  record.flags = reader.read<uint16_t>(what);
  record.method = reader.read<uint16_t>(what);
  reader.take(4, what);  // time
  record.entry.checksum = reader.read<uint32_t>(what);
  record.packed_size = reader.read<uint32_t>(what);
  record.entry.size = reader.read<uint32_t>(what);
  const auto name_size = reader.read<uint16_t>(what);
  const auto extra_size = reader.read<uint16_t>(what);
  const auto comment_size = reader.read<uint16_t>(what);
  reader.take(8, what);  // disk, attributes
  record.local_offset = reader.read<uint32_t>(what);
  record.entry.name = reader.text(name_size, what);
  read_zip64_extra(reader.take(extra_size, what), record, reader.where());
  reader.take(comment_size, what);
  return record;
}

void place_entry(std::span<const std::byte> archive, CentralRecord& record, const std::string& where) {
  const std::string here = where + ": zip entry " + in_quotes(record.entry.name);
  if (record.flags & 1u) fail_unsupported(here, "encrypted");
  if (record.method != 0 && record.method != Z_DEFLATED) {
    fail_unsupported(here, "compression method " + std::to_string(record.method) + "; read are stored and deflated");
  }
  ByteReader local(from(archive, record.local_offset, here, "its header is"), here);
  expect_signature(local, local_signature, "local header");
  local.take(22, "local header");
  const auto name_size = local.read<uint16_t>("local header");
  const auto extra_size = local.read<uint16_t>("local header");
  local.take(name_size, "local header");
  local.take(extra_size, "local header");
  record.entry.data = local.take(record.packed_size, "its contents");
  record.entry.deflated = record.method == Z_DEFLATED;
  if (record.entry.deflated && record.entry.size / max_deflate_ratio > record.packed_size) {
    fail_corrupt(here,
                 std::to_string(record.packed_size) + " bytes cannot unpack to " + std::to_string(record.entry.size));
  }
  if (!record.entry.deflated && record.entry.size != record.packed_size) {
    fail_corrupt(here, "stored, but its two sizes differ: " + std::to_string(record.entry.size) + " and " +
                           std::to_string(record.packed_size));
  }
}

// Entries that share bytes are how a small archive unpacks to a huge one.
void check_disjoint(const std::vector<ZipEntry>& entries, const std::string& where) {
  std::vector<const ZipEntry*> order;
  for (const ZipEntry& entry : entries) {
    if (!entry.data.empty()) order.push_back(&entry);
  }
  std::sort(order.begin(), order.end(),
            [](const ZipEntry* a, const ZipEntry* b) { return a->data.data() < b->data.data(); });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i]->data.data() < order[i - 1]->data.data() + order[i - 1]->data.size()) {
      fail_corrupt(
          where, "zip entries " + in_quotes(order[i - 1]->name) + " and " + in_quotes(order[i]->name) + " share bytes");
    }
  }
}

void check_sum(const ZipEntry& entry, const std::byte* contents, const std::string& where) {
  const auto sum = ::crc32_z(0, reinterpret_cast<const Bytef*>(contents), entry.size);
  if (sum != entry.checksum) fail_damaged(where, "zip entry " + in_quotes(entry.name) + ": its checksum is wrong");
}

struct Inflater {
  z_stream stream{};
  Inflater() {
    // Negative window bits: raw deflate, as zip stores it.
    if (::inflateInit2(&stream, -MAX_WBITS) != Z_OK) throw base::Error(base::ErrorCode::internal, "zlib cannot start");
  }
  ~Inflater() { ::inflateEnd(&stream); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;
};

// Into exactly `size` bytes at `out`; false where the stream is damaged, shorter or longer.
bool inflate_into(std::span<const std::byte> packed, std::byte* out, uint64_t size) {
  Inflater inflater;
  z_stream& stream = inflater.stream;
  constexpr uint64_t piece = std::numeric_limits<uInt>::max();
  std::byte beyond{};  // the first byte too many lands here
  uint64_t taken = 0;
  uint64_t made = 0;
  while (true) {
    const uint64_t in = std::min(piece, packed.size() - taken);
    const bool full = made >= size;
    const uint64_t room = full ? 1 : std::min(piece, size - made);
    stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(packed.data() + taken));
    stream.avail_in = static_cast<uInt>(in);
    stream.next_out = reinterpret_cast<Bytef*>(full ? &beyond : out + made);
    stream.avail_out = static_cast<uInt>(room);
    const int result = ::inflate(&stream, Z_NO_FLUSH);
    taken += in - stream.avail_in;
    made += room - stream.avail_out;
    if (made > size) return false;
    if (result == Z_STREAM_END) return made == size;
    if (result != Z_OK) return false;
  }
}

}  // namespace

std::vector<ZipEntry> read_zip(std::span<const std::byte> archive, const std::string& where) {
  const Directory directory = read_end(archive, where);
  const auto rest = from(archive, directory.offset, where, "central directory");
  if (directory.size > rest.size() || directory.entries > directory.size / central_size) {
    fail_damaged(where, "a central directory of " + std::to_string(directory.entries) + " entries in " +
                            std::to_string(directory.size) + " bytes does not fit the file");
  }
  ByteReader reader(rest.first(directory.size), where);
  std::vector<ZipEntry> entries;
  std::unordered_set<std::string> names;
  for (uint64_t i = 0; i < directory.entries; ++i) {
    CentralRecord record = read_central(reader);
    place_entry(archive, record, where);
    if (!names.insert(record.entry.name).second) {
      fail_corrupt(where, "zip entry " + in_quotes(record.entry.name) + " occurs twice");
    }
    entries.push_back(std::move(record.entry));
  }
  check_disjoint(entries, where);
  return entries;
}

std::unique_ptr<std::byte[]> unpack(const ZipEntry& entry, const std::string& where) {
  auto contents = std::make_unique_for_overwrite<std::byte[]>(std::max<uint64_t>(entry.size, 1));
  if (!entry.deflated) {
    std::copy(entry.data.begin(), entry.data.end(), contents.get());
  } else if (!inflate_into(entry.data, contents.get(), entry.size)) {
    fail_damaged(where, "zip entry " + in_quotes(entry.name) + ": its compressed contents are damaged or not " +
                            std::to_string(entry.size) + " bytes");
  }
  check_sum(entry, contents.get(), where);
  return contents;
}

}  // namespace cepe::formats
