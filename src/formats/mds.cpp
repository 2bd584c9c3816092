#include "formats/mds.h"

#include <charconv>
#include <cstring>

#include "formats/byte_reader.h"
#include "formats/dtype.h"
#include "formats/numpy_pickle.h"

namespace cepe::formats {
namespace {

[[noreturn]] void wrong_encoding(const MdsColumn& column, const char* wanted, const std::string& where) {
  fail_unsupported(where, "column " + in_quotes(column.name) + " has encoding " + in_quotes(column.encoding) +
                              "; expected " + wanted);
}

// "ndarray:int32:4,8" apart.
struct ArrayEncoding {
  std::optional<NumpyType> type;
  std::optional<std::vector<int64_t>> shape;
};

ArrayEncoding parse_array_encoding(const MdsColumn& column, const std::string& where) {
  ArrayEncoding encoding;
  std::string_view rest = column.encoding;
  rest.remove_prefix(std::string_view("ndarray").size());
  if (rest.empty()) return encoding;
  rest.remove_prefix(1);
  const std::string_view name = rest.substr(0, rest.find(':'));
  encoding.type = numpy_type_of_name(name);
  if (!encoding.type) wrong_encoding(column, "ndarray of a known type", where);
  if (name.size() == rest.size()) return encoding;
  rest.remove_prefix(name.size() + 1);
  encoding.shape.emplace();
  for (bool more = true; more;) {
    int64_t size = 0;
    const auto [end, problem] = std::from_chars(rest.data(), rest.data() + rest.size(), size);
    if (problem != std::errc() || size < 1 || encoding.shape->size() == 63)
      wrong_encoding(column, "ndarray:type:size,size...", where);
    encoding.shape->push_back(size);
    rest.remove_prefix(static_cast<size_t>(end - rest.data()));
    more = !rest.empty();
    if (more && rest[0] != ',') wrong_encoding(column, "ndarray:type:size,size...", where);
    if (more) rest.remove_prefix(1);
  }
  return encoding;
}

// The library's number of a type, where the encoding does not fix it.
NumpyType read_type(ByteReader& reader) {
  const auto number = reader.read<uint8_t>("an array's type");
  constexpr std::pair<int, const char*> numbers[] = {{8, "uint8"},    {9, "int8"},    {16, "uint16"}, {17, "int16"},
                                                     {18, "float16"}, {32, "uint32"}, {33, "int32"},  {34, "float32"},
                                                     {64, "uint64"},  {65, "int64"},  {66, "float64"}};
  for (const auto& [known, name] : numbers) {
    if (known == number) return *numpy_type_of_name(name);
  }
  fail_corrupt(reader.where(), "array type " + std::to_string(number) + " is unknown");
}

std::vector<int64_t> read_shape(ByteReader& reader) {
  const auto head = reader.read<uint8_t>("an array's shape");  // dimensions * 4 + width of the sizes
  const uint64_t width = uint64_t{1} << (head & 3);
  std::vector<int64_t> shape;
  for (int i = 0; i < head >> 2; ++i) {
    uint64_t size = 0;
    std::memcpy(&size, reader.take(width, "an array's shape").data(), width);
    if (size >> 62 != 0) fail_corrupt(reader.where(), "an array's size is above 2^62");
    shape.push_back(static_cast<int64_t>(size));
  }
  return shape;
}

}  // namespace

MdsSamples::MdsSamples(std::span<const std::byte> bytes, const MdsShard& shard, const std::string& where)
    : bytes_(bytes), columns_(shard.columns), where_(where), size_(shard.samples) {
  ByteReader reader(bytes, where);
  const auto samples = reader.read<uint32_t>("the number of samples");
  if (samples != shard.samples) {
    fail_damaged(where, std::to_string(samples) + " samples where index.json says " + std::to_string(shard.samples));
  }
  reader.take((uint64_t{samples} + 1) * 4, "the samples' offsets");
}

uint32_t MdsSamples::offset(int64_t place) const {
  uint32_t value = 0;
  std::memcpy(&value, bytes_.data() + 4 * (place + 1), sizeof value);
  return value;
}

std::vector<std::span<const std::byte>> MdsSamples::at(int64_t sample) const {
  if (sample < 0 || sample >= size_) {
    throw base::Error(base::ErrorCode::invalid_argument,
                      where_ + ": sample " + std::to_string(sample) + " of " + std::to_string(size_));
  }
  const std::string here = where_ + ", sample " + std::to_string(sample);
  const uint32_t begin = offset(sample), end = offset(sample + 1);
  if (begin > end || end > bytes_.size()) {
    fail_damaged(here, "stands from byte " + std::to_string(begin) + " to " + std::to_string(end) + " of " +
                           std::to_string(bytes_.size()));
  }
  ByteReader reader(bytes_.subspan(begin, end - begin), here);
  std::vector<uint64_t> sizes;
  for (const MdsColumn& column : columns_)
    sizes.push_back(column.size ? static_cast<uint64_t>(*column.size) : reader.read<uint32_t>("a column's size"));
  std::vector<std::span<const std::byte>> values;
  for (size_t i = 0; i < columns_.size(); ++i)
    values.push_back(reader.take(sizes[i], "column " + in_quotes(columns_[i].name)));
  return values;
}

std::string mds_text(const MdsColumn& column, std::span<const std::byte> bytes, const std::string& where) {
  if (column.encoding != "str") wrong_encoding(column, "str", where);
  std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (!is_utf8(text)) fail_corrupt(where, "column " + in_quotes(column.name) + " is no UTF-8");
  return text;
}

int64_t mds_integer(const MdsColumn& column, std::span<const std::byte> bytes, const std::string& where) {
  if (column.encoding != "int" && column.encoding != "int64") wrong_encoding(column, "int", where);
  int64_t value = 0;
  if (bytes.size() != sizeof value) fail_corrupt(where, "column " + in_quotes(column.name) + " is not 8 bytes long");
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

NumpyArray mds_array(const MdsColumn& column, std::span<const std::byte> bytes, const std::string& where) {
  const std::string here = where + ", column " + in_quotes(column.name);
  if (column.encoding == "pkl") return parse_numpy_pickle(bytes, here);
  if (column.encoding != "ndarray" && !column.encoding.starts_with("ndarray:"))
    wrong_encoding(column, "pkl or ndarray", where);
  const ArrayEncoding encoding = parse_array_encoding(column, where);
  ByteReader reader(bytes, here);
  const NumpyType type = encoding.type ? *encoding.type : read_type(reader);
  std::vector<int64_t> shape = encoding.shape ? *encoding.shape : read_shape(reader);
  return checked_array(type, std::move(shape), reader.take(reader.left(), "the values"), here);
}

}  // namespace cepe::formats
