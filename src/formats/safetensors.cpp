#include "formats/safetensors.h"

#include <algorithm>
#include <tuple>

#include "formats/byte_reader.h"
#include "formats/dtype.h"

namespace cepe::formats {
namespace {

struct Range {
  uint64_t begin;
  uint64_t end;
  size_t tensor;
};

uint64_t size_value(const base::Json& value, const std::string& where, const char* field) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
    fail_corrupt(where, std::string(field) + " must hold whole numbers from 0 to 2^63 - 1");
  }
  return value.get<uint64_t>();
}

const base::Json& array_field(const base::Json& entry, const char* field, const std::string& where) {
  if (!entry.contains(field) || !entry.at(field).is_array()) {
    fail_corrupt(where, std::string("field '") + field + "' must be a list");
  }
  return entry.at(field);
}

// One header entry; its bytes are set from data_offsets, which are relative to `data`.
TensorView parse_entry(const base::Json& entry, std::span<const std::byte> data, const std::string& where,
                       Range& range) {
  if (!entry.is_object()) fail_corrupt(where, "must be an object with dtype, shape and data_offsets");
  const std::string type_name = base::json_string(entry, "dtype", where);
  const auto type = dtype_of_safetensors(type_name);
  if (!type) {
    fail_unsupported(where, "element type " + in_quotes(type_name) +
                                "; read are F64, F32, F16, BF16, I64, I32, I16, I8, U8 and BOOL");
  }
  TensorView view{*type, {}, {}};
  for (const base::Json& size : array_field(entry, "shape", where)) {
    view.shape.push_back(static_cast<int64_t>(size_value(size, where, "shape")));
  }
  const base::Json& offsets = array_field(entry, "data_offsets", where);
  if (offsets.size() != 2) fail_corrupt(where, "data_offsets must be [begin, end]");
  range.begin = size_value(offsets[0], where, "data_offsets");
  range.end = size_value(offsets[1], where, "data_offsets");
  if (range.begin > range.end || range.end > data.size()) {
    fail_damaged(where, "data_offsets [" + std::to_string(range.begin) + ", " + std::to_string(range.end) +
                            "] lie outside the " + std::to_string(data.size()) + " bytes of data");
  }
  const auto bytes = checked_bytes(*type, view.shape);
  if (!bytes || static_cast<uint64_t>(*bytes) != range.end - range.begin) {
    fail_corrupt(where, type_name + " " + shape_text(view.shape) + " does not fit its " +
                            std::to_string(range.end - range.begin) + " bytes");
  }
  view.bytes = data.subspan(range.begin, range.end - range.begin);
  return view;
}

void check_tiling(std::vector<Range>& ranges, const std::vector<NamedTensor>& tensors, uint64_t data_size,
                  const std::string& where) {
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return std::tie(a.begin, a.end) < std::tie(b.begin, b.end); });
  uint64_t expected = 0;
  for (const Range& range : ranges) {
    if (range.begin != expected) {
      fail_corrupt(where + ": tensor " + in_quotes(tensors[range.tensor].name),
                   "data starts at byte " + std::to_string(range.begin) + " of the data, expected " +
                       std::to_string(expected) + (range.begin < expected ? " (overlap)" : " (hole)"));
    }
    expected = range.end;
  }
  if (expected != data_size) {
    fail_damaged(where, "the tensors end at byte " + std::to_string(expected) + " of the data, which has " +
                            std::to_string(data_size));
  }
}

void check_metadata(const base::Json& metadata, const std::string& where) {
  if (!metadata.is_object()) fail_corrupt(where, "must be an object of strings");
  for (const auto& [key, value] : metadata.items()) {
    if (!value.is_string()) fail_corrupt(where, "value of " + in_quotes(key) + " must be a string");
  }
}

}  // namespace

ParsedFile parse_safetensors(std::span<const std::byte> file, const std::string& where) {
  ByteReader reader(file, where);
  const auto header_size = reader.read<uint64_t>("the header's length");
  if (header_size > max_safetensors_header) {
    fail_corrupt(where, "header length " + std::to_string(header_size) + "; at most " +
                            std::to_string(max_safetensors_header) + " (is it safetensors at all?)");
  }
  const base::Json header = base::parse_json(reader.text(header_size, "the header"), where + ": header");
  if (!header.is_object()) fail_corrupt(where, "the header must be a JSON object");
  const auto data = file.subspan(reader.position());

  ParsedFile parsed;
  std::vector<Range> ranges;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      check_metadata(entry, where + ": __metadata__");
      parsed.metadata = entry;
      continue;
    }
    Range range{0, 0, parsed.tensors.size()};
    TensorView view = parse_entry(entry, data, where + ": tensor " + in_quotes(name), range);
    ranges.push_back(range);
    parsed.tensors.push_back({name, std::move(view)});
  }
  check_tiling(ranges, parsed.tensors, data.size(), where);
  return parsed;
}

}  // namespace cepe::formats
