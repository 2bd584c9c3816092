#include "formats/mds_writer.h"

#include <zstd.h>

#include <algorithm>
#include <cstdio>

#include "base/error.h"

namespace cepe::formats {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;

constexpr int64_t most_written_bytes = (int64_t{1} << 32) - 1;  // offsets are 32 bits wide

void append(std::string& out, uint32_t number) { out.append(reinterpret_cast<const char*>(&number), sizeof number); }

Json config_of(const std::vector<MdsColumn>& columns, const MdsWriterSettings& settings) {
  Json json = {{"version", 2},
               {"format", "mds"},
               {"compression", settings.zstd ? Json("zstd") : Json()},
               {"hashes", Json::array()},
               {"size_limit", settings.shard_bytes},
               {"column_names", Json::array()},
               {"column_encodings", Json::array()},
               {"column_sizes", Json::array()}};
  for (const MdsColumn& column : columns) {
    json["column_names"].push_back(column.name);
    json["column_encodings"].push_back(column.encoding);
    json["column_sizes"].push_back(column.size ? Json(*column.size) : Json());
  }
  return json;
}

std::string pack(const std::string& plain) {
  std::string packed(ZSTD_compressBound(plain.size()), '\0');
  const size_t size = ZSTD_compress(packed.data(), packed.size(), plain.data(), plain.size(), 3);
  if (ZSTD_isError(size)) throw Error(ErrorCode::internal, std::string("zstd: ") + ZSTD_getErrorName(size));
  packed.resize(size);
  return packed;
}

Json file_json(const std::string& name, const std::string& content) {
  return {{"basename", name}, {"bytes", content.size()}, {"hashes", Json::object()}};
}

}  // namespace

MdsWriter::MdsWriter(const base::Path& folder, std::vector<MdsColumn> columns, const MdsWriterSettings& settings)
    : folder_(folder), columns_(std::move(columns)), settings_(settings), shards_(Json::array()) {
  const bool sorted = std::is_sorted(columns_.begin(), columns_.end(),
                                     [](const MdsColumn& a, const MdsColumn& b) { return a.name < b.name; });
  if (!sorted || settings.shard_bytes < 1 || settings.shard_bytes > most_written_bytes) {
    throw Error(ErrorCode::invalid_argument,
                "MDS: columns must be sorted by name, shards of 1 to 2^32 - 1 bytes; asked for " +
                    std::to_string(settings.shard_bytes));
  }
  config_ = config_of(columns_, settings_).dump();
}

void MdsWriter::write(std::span<const std::string> values) {
  std::string head, body;
  for (size_t i = 0; i < values.size() && i < columns_.size(); ++i) {
    if (!columns_[i].size) append(head, static_cast<uint32_t>(values[i].size()));
    if (columns_[i].size && *columns_[i].size != static_cast<int64_t>(values[i].size()))
      throw Error(ErrorCode::invalid_argument, "MDS: column '" + columns_[i].name + "' is not as long as it must be");
    body += values[i];
  }
  const auto beside = static_cast<int64_t>(config_.size() + 8);
  const auto size = static_cast<int64_t>(head.size() + body.size());
  if (values.size() != columns_.size() || size > most_written_bytes - beside - 4) {
    throw Error(ErrorCode::invalid_argument, "MDS: a sample of " + std::to_string(values.size()) + " columns and " +
                                                 std::to_string(size) + " bytes; expected " +
                                                 std::to_string(columns_.size()) + " columns and less than 4 GiB");
  }
  const int64_t so_far = beside + static_cast<int64_t>(samples_.size() + 4 * sizes_.size());
  if (!sizes_.empty() && so_far + size + 4 > settings_.shard_bytes) flush();
  sizes_.push_back(static_cast<uint32_t>(size));
  samples_.append(head).append(body);
}

void MdsWriter::flush() {
  std::string shard;
  append(shard, static_cast<uint32_t>(sizes_.size()));
  auto offset = static_cast<uint32_t>(4 + 4 * (sizes_.size() + 1) + config_.size());
  append(shard, offset);
  for (const uint32_t size : sizes_) append(shard, offset += size);
  shard.append(config_).append(samples_);

  char name[32];
  std::snprintf(name, sizeof name, "shard.%05zu.mds", shards_.size());
  Json json = config_of(columns_, settings_);
  json["samples"] = sizes_.size();
  json["raw_data"] = file_json(name, shard);
  json["zip_data"] = nullptr;
  if (settings_.zstd) {
    const std::string packed = pack(shard);
    json["zip_data"] = file_json(std::string(name) + ".zstd", packed);
    base::replace_file(folder_ / (std::string(name) + ".zstd"), packed);
  } else {
    base::replace_file(folder_ / name, shard);
  }
  shards_.push_back(std::move(json));
  sizes_.clear();
  samples_.clear();
}

void MdsWriter::finish() {
  if (!sizes_.empty()) flush();
  base::replace_file(folder_ / "index.json", Json({{"version", 2}, {"shards", shards_}}).dump());
}

}  // namespace cepe::formats
