// Writes a folder that mosaicml-streaming reads, as it writes one itself: plain shards, or zstd.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/json.h"
#include "formats/mds.h"

namespace cepe::formats {

struct MdsWriterSettings {
  bool zstd = false;
  int64_t shard_bytes = int64_t{1} << 26;  // a shard is finished before it becomes larger; below 2^32
};

class MdsWriter {
 public:
  // Columns in the order of their names, as the format demands. `folder` is there. Errors: invalid_argument.
  MdsWriter(const base::Path& folder, std::vector<MdsColumn> columns, const MdsWriterSettings& settings = {});

  // Encoded values, one for each column. Errors: invalid_argument for a number or a fixed size that does not fit, and
  // for a sample of 4 GiB; io.
  void write(std::span<const std::string> values);
  // Without it the folder has no index.json and is no data set. Errors: io.
  void finish();

 private:
  void flush();

  base::Path folder_;
  std::vector<MdsColumn> columns_;
  MdsWriterSettings settings_;
  std::string config_;  // the columns as JSON, in each shard
  base::Json shards_;
  std::vector<uint32_t> sizes_;  // of the samples of the open shard
  std::string samples_;
};

}  // namespace cepe::formats
