// index.json, a zero byte, and the bytes of its first shard.
#include <string>

#include "base/error.h"
#include "formats/mds.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cepe::formats;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t end = std::min(input.find('\0'), size);
  const std::string where = "fuzz";
  try {
    const std::vector<MdsShard> shards = parse_mds_index(input.substr(0, end), where);
    if (shards.empty() || end == size) return 0;
    const MdsSamples samples(std::as_bytes(std::span(data, size)).subspan(end + 1), shards[0], where);
    for (int64_t i = 0; i < samples.size(); ++i) {
      const auto values = samples.at(i);
      for (size_t c = 0; c < values.size(); ++c) {
        const MdsColumn& column = shards[0].columns[c];
        if (column.encoding == "str") {
          mds_text(column, values[c], where);
        } else if (column.encoding == "int") {
          mds_integer(column, values[c], where);
        } else {
          mds_array(column, values[c], where);
        }
      }
    }
  } catch (const cepe::base::Error& error) {
    if (!error.is_users()) throw;  // a defect of ours, not of the file
  }
  return 0;
}
