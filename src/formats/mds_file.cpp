// A shard's file: mapped or unpacked, and compared with the hashes that index.json gives.
#include <openssl/evp.h>
#include <zstd.h>

#include <algorithm>
#include <cstdio>

#include "base/error.h"
#include "formats/byte_reader.h"
#include "formats/mds.h"
#include "formats/xxh64.h"

namespace cepe::formats {
namespace {

// Nothing where the algorithm is unknown here.
std::optional<std::string> digest(const std::string& algorithm, std::span<const std::byte> bytes) {
  if (algorithm == "xxh64") {
    char text[17];
    std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(xxh64(bytes)));
    return text;
  }
  const EVP_MD* method = EVP_get_digestbyname(algorithm.c_str());
  unsigned char value[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  if (!method || EVP_Digest(bytes.data(), bytes.size(), value, &size, method, nullptr) != 1) return std::nullopt;
  std::string text;
  for (unsigned int i = 0; i < size; ++i) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", value[i]);
    text += digits;
  }
  return text;
}

void check(const MdsFile& file, std::span<const std::byte> bytes, const std::string& where) {
  if (bytes.size() != static_cast<size_t>(file.bytes)) {
    fail_damaged(where, std::to_string(bytes.size()) + " bytes where index.json says " + std::to_string(file.bytes));
  }
  for (const auto& [algorithm, wanted] : file.hashes) {
    const std::optional<std::string> found = digest(algorithm, bytes);
    if (found && *found != wanted) fail_damaged(where, "its " + algorithm + " differs from index.json");
  }
}

// At most `size` bytes come of it; the memory grows with what really does.
std::string unpack(std::span<const std::byte> packed, size_t size, const std::string& where) {
  const std::unique_ptr<ZSTD_DStream, decltype(&ZSTD_freeDStream)> stream(ZSTD_createDStream(), &ZSTD_freeDStream);
  if (!stream) throw base::Error(base::ErrorCode::out_of_memory, "no memory for zstd");
  std::string out;
  ZSTD_inBuffer input{packed.data(), packed.size(), 0};
  size_t status = 1;
  while (true) {
    const size_t before = out.size();
    out.resize(std::min(size + 1, before + std::max<size_t>(before, size_t{1} << 20)));
    ZSTD_outBuffer output{out.data(), out.size(), before};
    status = ZSTD_decompressStream(stream.get(), &output, &input);
    const bool stuck = output.pos == before && input.pos == input.size;
    out.resize(output.pos);
    if (ZSTD_isError(status)) fail_damaged(where, std::string("damaged zstd data: ") + ZSTD_getErrorName(status));
    if (out.size() > size)
      fail_damaged(where, "unpacks to more than the " + std::to_string(size) + " bytes of index.json");
    if (stuck || (status == 0 && input.pos == input.size)) break;
  }
  if (status != 0) fail_damaged(where, "the zstd data ends too soon");
  return out;
}

}  // namespace

MdsShardFile::MdsShardFile(const base::Path& folder, const MdsShard& shard) {
  std::error_code none;
  const base::Path plain = folder / shard.plain.name;
  if (!shard.packed || std::filesystem::exists(plain, none)) {
    mapped_.emplace(plain);
    check(shard.plain, mapped_->bytes(), plain.string());
    return;
  }
  const base::Path path = folder / shard.packed->name;
  const base::MappedFile packed(path);
  check(*shard.packed, packed.bytes(), path.string());
  unpacked_ = unpack(packed.bytes(), static_cast<size_t>(shard.plain.bytes), path.string());
  check(shard.plain, bytes(), path.string() + " (unpacked)");
}

std::span<const std::byte> MdsShardFile::bytes() const {
  if (mapped_) return mapped_->bytes();
  return std::as_bytes(std::span(unpacked_.data(), unpacked_.size()));
}

}  // namespace cepe::formats
