// index.json of an MDS folder.
#include <algorithm>

#include "base/json.h"
#include "formats/byte_reader.h"
#include "formats/mds.h"

namespace cepe::formats {
namespace {

using base::Json;

constexpr size_t most_shards = 1'000'000, most_columns = 1024;
constexpr int64_t most_shard_bytes = int64_t{1} << 32;  // offsets are 32 bits wide

int64_t count_in(const Json& object, const char* field, int64_t most, const std::string& where) {
  const int64_t count = base::json_integer(object, field, where);
  if (count < 0 || count > most)
    fail_corrupt(where, std::string("field '") + field + "' is " + std::to_string(count) + "; expected 0 to " +
                            std::to_string(most));
  return count;
}

// A name in the folder itself: anything else could read the user's other files.
std::string file_name(const Json& object, const std::string& where) {
  std::string name = base::json_string(object, "basename", where);
  if (name.empty() || name.size() > 255 || name == "." || name == ".." ||
      name.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos)
    fail_corrupt(where, "field 'basename' is " + in_quotes(name) + "; expected the name of a file beside index.json");
  return name;
}

MdsFile parse_file(const Json& object, const std::string& where) {
  if (!object.is_object()) fail_corrupt(where, "expected an object");
  MdsFile file{file_name(object, where), count_in(object, "bytes", most_shard_bytes, where), {}};
  if (!base::json_has(object, "hashes")) return file;
  if (!object["hashes"].is_object()) fail_corrupt(where, "field 'hashes' must be an object");
  for (const auto& [algorithm, digest] : object["hashes"].items()) {
    if (!digest.is_string()) fail_corrupt(where, "field 'hashes' must hold strings");
    file.hashes[algorithm] = digest.get<std::string>();
  }
  return file;
}

const Json& list_in(const Json& object, const char* field, size_t most, const std::string& where) {
  if (!base::json_has(object, field) || !object[field].is_array() || object[field].size() > most)
    fail_corrupt(where, std::string("field '") + field + "' must be a list of at most " + std::to_string(most));
  return object[field];
}

std::vector<MdsColumn> parse_columns(const Json& shard, const std::string& where) {
  const Json& names = list_in(shard, "column_names", most_columns, where);
  const Json& encodings = list_in(shard, "column_encodings", most_columns, where);
  const Json& sizes = list_in(shard, "column_sizes", most_columns, where);
  if (names.size() != encodings.size() || names.size() != sizes.size())
    fail_corrupt(where, "'column_names', 'column_encodings' and 'column_sizes' differ in number");
  std::vector<MdsColumn> columns;
  for (size_t i = 0; i < names.size(); ++i) {
    if (!names[i].is_string() || !encodings[i].is_string())
      fail_corrupt(where, "columns must have names and encodings");
    columns.push_back({names[i].get<std::string>(), encodings[i].get<std::string>(), std::nullopt});
    if (sizes[i].is_null()) continue;
    if (!sizes[i].is_number_integer() || sizes[i].get<int64_t>() < 0 || sizes[i].get<int64_t>() > most_shard_bytes)
      fail_corrupt(where, "'column_sizes' must hold null or sizes of at most 2^32");
    if (sizes[i] != 0) columns.back().size = sizes[i].get<int64_t>();  // 0 counts as null for the published reader
  }
  return columns;
}

MdsShard parse_shard(const Json& json, const std::string& where) {
  if (!json.is_object()) fail_corrupt(where, "expected an object");
  if (base::json_integer(json, "version", where) != 2) fail_unsupported(where, "only version 2 of MDS is read");
  if (const std::string format = base::json_string(json, "format", where); format != "mds")
    fail_unsupported(where, "format " + in_quotes(format) + "; only 'mds' is read");
  MdsShard shard;
  shard.columns = parse_columns(json, where);
  shard.samples = count_in(json, "samples", most_shard_bytes / 4, where);
  if (!json.contains("raw_data")) fail_corrupt(where, "field 'raw_data' is missing");
  shard.plain = parse_file(json["raw_data"], where + ".raw_data");
  if (!base::json_has(json, "zip_data")) return shard;
  const std::string compression = base::json_string(json, "compression", where);
  if (compression.substr(0, compression.find(':')) != "zstd")
    fail_unsupported(where, "compression " + in_quotes(compression) + "; read is zstd");
  shard.packed = parse_file(json["zip_data"], where + ".zip_data");
  return shard;
}

}  // namespace

std::vector<MdsShard> parse_mds_index(std::string_view text, const std::string& where) {
  const Json json = base::parse_json(text, where);
  if (!json.is_object()) fail_corrupt(where, "expected an object");
  if (const int64_t version = base::json_integer(json, "version", where); version != 2)
    fail_unsupported(where, "version " + std::to_string(version) + " of MDS; read is 2");
  std::vector<MdsShard> shards;
  for (const Json& shard : list_in(json, "shards", most_shards, where))
    shards.push_back(parse_shard(shard, where + ": shards[" + std::to_string(shards.size()) + "]"));
  return shards;
}

}  // namespace cepe::formats
