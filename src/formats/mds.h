// MDS, the shards of mosaicml-streaming (https://docs.mosaicml.com/projects/streaming): a folder with index.json
// (version 2) and shard.00000.mds..., plain or as zstd.
//
// A shard: uint32 number of samples n; uint32 offsets [n + 1] from the shard's beginning; the columns as JSON (not
// needed: index.json says the same); the samples. A sample: uint32 sizes of its columns of no fixed size; the columns'
// bytes.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "formats/numpy_array.h"

namespace cepe::formats {

struct MdsColumn {
  std::string name;
  std::string encoding;         // "pkl", "str", "int", "bytes", "ndarray", "ndarray:int32", "ndarray:int32:4,8"...
  std::optional<int64_t> size;  // bytes, where it is fixed
  bool operator==(const MdsColumn&) const = default;
};

struct MdsFile {
  std::string name;  // in the index' folder
  int64_t bytes = 0;
  std::map<std::string, std::string> hashes;  // algorithm -> hexadecimal digits
};

struct MdsShard {
  std::vector<MdsColumn> columns;
  int64_t samples = 0;
  MdsFile plain;
  std::optional<MdsFile> packed;  // zstd
};

constexpr const char* mds_index_name = "index.json";
constexpr size_t most_mds_index_bytes = size_t{256} << 20;

// Errors: corrupt; unsupported for other versions, formats and compressions; each names `where` and the field.
std::vector<MdsShard> parse_mds_index(std::string_view text, const std::string& where);

// The samples of one shard: views into `bytes`, checked against their end.
class MdsSamples {
 public:
  // `where` outlives it. Errors: corrupt.
  MdsSamples(std::span<const std::byte> bytes, const MdsShard& shard, const std::string& where);
  int64_t size() const { return size_; }
  // Bytes of each column, in the shard's order. Errors: corrupt, naming the sample.
  std::vector<std::span<const std::byte>> at(int64_t sample) const;

 private:
  uint32_t offset(int64_t place) const;

  std::span<const std::byte> bytes_;
  const std::vector<MdsColumn>& columns_;
  const std::string& where_;
  int64_t size_;
};

// A column's value. Errors: corrupt; unsupported for a column of another encoding, naming it.
std::string mds_text(const MdsColumn& column, std::span<const std::byte> bytes, const std::string& where);  // str
int64_t mds_integer(const MdsColumn& column, std::span<const std::byte> bytes, const std::string& where);   // int
NumpyArray mds_array(const MdsColumn& column, std::span<const std::byte> bytes,
                     const std::string& where);  // pkl, ndarray

// A shard's bytes: mapped, or unpacked into memory. Hashes that index.json gives are compared where the algorithm is
// known (OpenSSL's, and xxh64); others are passed over. Errors: not_found, corrupt, io.
class MdsShardFile {
 public:
  MdsShardFile(const base::Path& folder, const MdsShard& shard);
  std::span<const std::byte> bytes() const;

 private:
  std::optional<base::MappedFile> mapped_;
  std::string unpacked_;
};

}  // namespace cepe::formats
