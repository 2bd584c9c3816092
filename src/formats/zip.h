// The zip archives that PyTorch writes: a table of entries, read from the central directory (zip64 included).
// APPNOTE.TXT, https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace cepe::formats {

struct ZipEntry {
  std::string name;
  bool deflated = false;            // else stored
  uint32_t checksum = 0;            // CRC-32 of the contents
  uint64_t size = 0;                // bytes of the contents
  std::span<const std::byte> data;  // bytes in the archive; equal to the contents where stored
};

// Entries in the archive's order. Errors: corrupt (names the entry; also for duplicate names and entries that share
// bytes), unsupported for encrypted, multi-disk and otherwise compressed ones.
std::vector<ZipEntry> read_zip(std::span<const std::byte> archive, const std::string& where);

// The entry's contents, `size` bytes, checked against its checksum.
// Errors: corrupt where they are longer or shorter than said or the checksum differs.
std::unique_ptr<std::byte[]> unpack(const ZipEntry& entry, const std::string& where);

}  // namespace cepe::formats
