// Files put together byte by byte, for tests of readers: well-formed ones to start from, and damaged ones.
#pragma once

#include <zlib.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace cepe::test {

class FileBytes {
 public:
  FileBytes() = default;
  explicit FileBytes(std::string_view content) : bytes_(content) {}

  template <class T>
  FileBytes& value(T number) {  // little-endian, as this machine is
    bytes_.append(reinterpret_cast<const char*>(&number), sizeof(number));
    return *this;
  }
  FileBytes& text(std::string_view content) {
    bytes_.append(content);
    return *this;
  }
  FileBytes& sized(std::string_view content) { return value<uint64_t>(content.size()).text(content); }
  FileBytes& zeros(size_t count) {
    bytes_.append(count, '\0');
    return *this;
  }

  size_t size() const { return bytes_.size(); }
  const std::string& string() const { return bytes_; }
  std::span<const std::byte> span() const { return std::as_bytes(std::span(bytes_.data(), bytes_.size())); }

 private:
  std::string bytes_;
};

inline FileBytes safetensors_bytes(std::string_view header, size_t data_bytes) {
  return FileBytes().sized(header).zeros(data_bytes);
}

struct ZipPart {
  std::string name;
  std::string stored;  // bytes in the archive
  uint64_t size;       // as the directory says
  uint32_t checksum;
  uint16_t method = 0;
  uint16_t flags = 0;

  static ZipPart plain(std::string name, std::string content) {
    const auto sum = ::crc32_z(0, reinterpret_cast<const Bytef*>(content.data()), content.size());
    const uint64_t size = content.size();
    return {std::move(name), std::move(content), size, static_cast<uint32_t>(sum)};
  }
  static ZipPart deflated(std::string name, std::string_view content) {
    std::string packed(::compressBound(content.size()) + 64, '\0');
    z_stream stream{};
    ::deflateInit2(&stream, 9, Z_DEFLATED, -MAX_WBITS, 9, Z_DEFAULT_STRATEGY);
    stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(content.data()));
    stream.avail_in = static_cast<uInt>(content.size());
    stream.next_out = reinterpret_cast<Bytef*>(packed.data());
    stream.avail_out = static_cast<uInt>(packed.size());
    ::deflate(&stream, Z_FINISH);
    packed.resize(stream.total_out);
    ::deflateEnd(&stream);
    const auto sum = ::crc32_z(0, reinterpret_cast<const Bytef*>(content.data()), content.size());
    return {std::move(name), std::move(packed), content.size(), static_cast<uint32_t>(sum), Z_DEFLATED};
  }
};

// An archive as PyTorch writes it; with zip64, every size, count and offset stands in zip64's fields.
inline FileBytes zip_bytes(const std::vector<ZipPart>& parts, bool zip64 = false) {
  FileBytes file;
  FileBytes directory;
  for (const ZipPart& part : parts) {
    const uint64_t offset = file.size();
    const auto name_size = static_cast<uint16_t>(part.name.size());
    const auto stored = static_cast<uint32_t>(part.stored.size());
    file.value<uint32_t>(0x04034b50).value<uint16_t>(20).value(part.flags).value(part.method).value<uint32_t>(0);
    file.value(part.checksum).value(stored).value(static_cast<uint32_t>(part.size)).value(name_size);
    file.value<uint16_t>(0).text(part.name).text(part.stored);
    directory.value<uint32_t>(0x02014b50).value<uint32_t>(0).value(part.flags).value(part.method).value<uint32_t>(0);
    directory.value(part.checksum).value(zip64 ? ~0u : stored);
    directory.value(zip64 ? ~0u : static_cast<uint32_t>(part.size)).value(name_size);
    directory.value<uint16_t>(zip64 ? 28 : 0).zeros(10).value(zip64 ? ~0u : static_cast<uint32_t>(offset));
    directory.text(part.name);
    if (zip64) directory.value<uint16_t>(1).value<uint16_t>(24).value(part.size).value<uint64_t>(stored).value(offset);
  }
  const uint64_t start = file.size();
  file.text(directory.string());
  if (zip64) {
    const uint64_t end = file.size();
    file.value<uint32_t>(0x06064b50).value<uint64_t>(44).zeros(12).value<uint64_t>(parts.size());
    file.value<uint64_t>(parts.size()).value<uint64_t>(directory.size()).value(start);
    file.value<uint32_t>(0x07064b50).value<uint32_t>(0).value(end).value<uint32_t>(1);
  }
  const auto count = static_cast<uint16_t>(zip64 ? 0xffff : parts.size());
  file.value<uint32_t>(0x06054b50).value<uint32_t>(0).value(count).value(count);
  file.value(zip64 ? ~0u : static_cast<uint32_t>(directory.size())).value(zip64 ? ~0u : static_cast<uint32_t>(start));
  return file.value<uint16_t>(0);
}

// An archive with this pickle and 16 bytes of storage "0" (floats 0, 1, 2, 3).
inline FileBytes torch_bytes(std::string_view pickle) {
  FileBytes floats;
  for (int i = 0; i < 4; ++i) floats.value(static_cast<float>(i));
  return zip_bytes({ZipPart::plain("m/data.pkl", std::string(pickle)), ZipPart::plain("m/data/0", floats.string())});
}

}  // namespace cepe::test
