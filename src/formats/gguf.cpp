#include "formats/gguf.h"

#include <algorithm>
#include <unordered_set>

#include "formats/byte_reader.h"
#include "formats/dtype.h"

namespace cepe::formats {
namespace {

constexpr int max_array_depth = 4;
constexpr int64_t max_metadata_values = int64_t{1} << 24;  // of all metadata; the largest vocabularies have 2^18 tokens
constexpr uint64_t max_name_bytes = 65535;
constexpr uint32_t max_dimensions = 4;  // GGML_MAX_DIMS
constexpr uint64_t default_alignment = 32;
constexpr uint64_t max_alignment = uint64_t{1} << 20;

enum class ValueType : uint32_t {
  uint8,
  int8,
  uint16,
  int16,
  uint32,
  int32,
  float32,
  boolean,
  string,
  array,
  uint64,
  int64,
  float64
};

std::string_view read_string(ByteReader& reader, std::string_view what) {
  return reader.text(reader.read<uint64_t>(what), what);
}

std::string read_name(ByteReader& reader, const char* what) {
  const auto size = reader.read<uint64_t>(what);
  if (size > max_name_bytes) {
    fail_damaged(reader.where(), std::string(what) + " of " + std::to_string(size) + " bytes at byte " +
                                     std::to_string(reader.position()) + ", at most " + std::to_string(max_name_bytes));
  }
  const auto name = reader.text(size, what);
  if (!is_utf8(name)) fail_corrupt(reader.where(), std::string(what) + " " + in_quotes(name) + " is not UTF-8");
  return std::string(name);
}

class MetadataReader {
 public:
  explicit MetadataReader(ByteReader& reader) : reader_(reader) {}

  base::Json read_all(uint64_t count) {
    base::Json metadata = base::Json::object();
    for (uint64_t i = 0; i < count; ++i) {
      const std::string key = read_name(reader_, "a metadata key");
      what_ = "metadata " + in_quotes(key);
      const auto type = reader_.read<uint32_t>(what_);
      if (metadata.contains(key)) fail_corrupt(reader_.where(), what_ + " occurs twice");
      metadata[key] = read_value(type, 0);
    }
    return metadata;
  }

 private:
  base::Json read_value(uint32_t type, int depth) {
    if (++values_ > max_metadata_values) {
      fail_corrupt(reader_.where(), what_ + ": more than " + std::to_string(max_metadata_values) + " metadata values");
    }
    switch (static_cast<ValueType>(type)) {
      case ValueType::uint8:
        return reader_.read<uint8_t>(what_);
      case ValueType::int8:
        return reader_.read<int8_t>(what_);
      case ValueType::uint16:
        return reader_.read<uint16_t>(what_);
      case ValueType::int16:
        return reader_.read<int16_t>(what_);
      case ValueType::uint32:
        return reader_.read<uint32_t>(what_);
      case ValueType::int32:
        return reader_.read<int32_t>(what_);
      case ValueType::float32:
        return reader_.read<float>(what_);
      case ValueType::boolean:
        return read_boolean();
      case ValueType::string:
        return std::string(read_string(reader_, what_));
      case ValueType::array:
        return read_array(depth);
      case ValueType::uint64:
        return reader_.read<uint64_t>(what_);
      case ValueType::int64:
        return reader_.read<int64_t>(what_);
      case ValueType::float64:
        return reader_.read<double>(what_);
    }
    fail_damaged(reader_.where(), what_ + " has the unknown value type " + std::to_string(type));
  }

  bool read_boolean() {
    const auto value = reader_.read<uint8_t>(what_);
    if (value > 1) fail_corrupt(reader_.where(), what_ + ": a boolean must be 0 or 1, found " + std::to_string(value));
    return value == 1;
  }

  base::Json read_array(int depth) {
    if (depth == max_array_depth) {
      fail_corrupt(reader_.where(), what_ + ": arrays nested deeper than " + std::to_string(max_array_depth));
    }
    const auto type = reader_.read<uint32_t>(what_);
    const auto count = reader_.read<uint64_t>(what_);
    if (count > reader_.left()) {  // an element takes a byte or more
      fail_damaged(reader_.where(), what_ + ": an array of " + std::to_string(count) + " elements in the " +
                                        std::to_string(reader_.left()) + " bytes left");
    }
    base::Json array = base::Json::array();
    for (uint64_t i = 0; i < count; ++i) array.push_back(read_value(type, depth + 1));
    return array;
  }

  ByteReader& reader_;
  std::string what_;
  int64_t values_ = 0;
};

struct Placed {
  NamedTensor tensor;
  uint64_t offset;
};

Placed read_description(ByteReader& reader) {
  Placed placed;
  placed.tensor.name = read_name(reader, "a tensor's name");
  const std::string what = "tensor " + in_quotes(placed.tensor.name);
  const auto dimensions = reader.read<uint32_t>(what);
  if (dimensions > max_dimensions) {
    fail_corrupt(reader.where(), what + " has " + std::to_string(dimensions) + " dimensions; at most 4");
  }
  TensorView& view = placed.tensor.view;
  for (uint32_t i = 0; i < dimensions; ++i) {
    const auto size = reader.read<uint64_t>(what);
    if (size > static_cast<uint64_t>(INT64_MAX)) fail_corrupt(reader.where(), what + " has a size beyond 2^63 - 1");
    view.shape.insert(view.shape.begin(), static_cast<int64_t>(size));
  }
  const auto number = reader.read<uint32_t>(what);
  const auto type = dtype_of_ggml(number);
  if (!type) {
    fail_unsupported(reader.where(), what + " has the type " + ggml_name(number) +
                                         "; read are F64, F32, F16, BF16, I8-I64, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and "
                                         "Q2_K to Q6_K");
  }
  view.type = *type;
  placed.offset = reader.read<uint64_t>(what);
  return placed;
}

uint64_t alignment_of(const base::Json& metadata, const std::string& where) {
  const auto found = metadata.find("general.alignment");
  if (found == metadata.end()) return default_alignment;
  const bool fits = found->is_number_unsigned() && found->get<uint64_t>() != 0 &&
                    found->get<uint64_t>() <= max_alignment &&
                    (found->get<uint64_t>() & (found->get<uint64_t>() - 1)) == 0;
  if (!fits) fail_corrupt(where, "metadata 'general.alignment' must be a power of two from 1 to 2^20");
  return found->get<uint64_t>();
}

// llama.cpp splits large models into files of some of the tensors each ("-00001-of-00003.gguf").
void refuse_split(const base::Json& metadata, const std::string& where) {
  const auto count = metadata.find("split.count");
  if (count == metadata.end() || !count->is_number_integer() || *count <= 1) return;
  fail_unsupported(where, "one of " + count->dump() +
                              " files of a split model (metadata 'split.count'); join them with llama.cpp's "
                              "'llama-gguf-split --merge FIRST-FILE JOINED-FILE' and give the joined one");
}

void place(Placed& placed, std::span<const std::byte> data, uint64_t alignment, const std::string& where) {
  TensorView& view = placed.tensor.view;
  const std::string what = "tensor " + in_quotes(placed.tensor.name);
  const auto bytes = checked_bytes(view.type, view.shape);
  if (!bytes) {
    fail_corrupt(where, what + ": " + std::string(name_of(view.type)) + " " + shape_text(view.shape) +
                            " is no possible shape (rows must be whole blocks of " +
                            std::to_string(block_values(view.type)) + ", sizes below 2^63)");
  }
  if (placed.offset % alignment != 0) {
    fail_corrupt(where, what + ": offset " + std::to_string(placed.offset) + " is no multiple of the alignment " +
                            std::to_string(alignment));
  }
  const auto size = static_cast<uint64_t>(*bytes);
  if (placed.offset > data.size() || size > data.size() - placed.offset) {
    fail_damaged(where, what + ": " + std::to_string(size) + " bytes at offset " + std::to_string(placed.offset) +
                            " lie outside the " + std::to_string(data.size()) + " bytes of data");
  }
  view.bytes = data.subspan(placed.offset, size);
}

void check_overlaps(const std::vector<Placed>& tensors, const std::string& where) {
  std::vector<const Placed*> order;
  for (const Placed& placed : tensors) {
    if (!placed.tensor.view.bytes.empty()) order.push_back(&placed);
  }
  std::sort(order.begin(), order.end(), [](const Placed* a, const Placed* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i]->offset < order[i - 1]->offset + order[i - 1]->tensor.view.bytes.size()) {
      fail_corrupt(where, "tensor " + in_quotes(order[i]->tensor.name) + " overlaps tensor " +
                              in_quotes(order[i - 1]->tensor.name));
    }
  }
}

struct Counts {
  uint64_t tensors;
  uint64_t keys;
};

Counts read_head(ByteReader& reader) {
  if (reader.text(4, "the magic number") != "GGUF") fail_corrupt(reader.where(), "does not start with 'GGUF'");
  const auto version = reader.read<uint32_t>("the version");
  if (version != 2 && version != 3) {
    const bool swapped = (version & 0xffffu) == 0 && version != 0;
    fail_unsupported(reader.where(), swapped ? std::string("a big-endian GGUF file; only little-endian ones are read")
                                             : "GGUF version " + std::to_string(version) + "; read are 2 and 3");
  }
  const auto tensors = reader.read<uint64_t>("the number of tensors");
  const auto keys = reader.read<uint64_t>("the number of metadata keys");
  // The shortest key with its value takes 13 bytes, the shortest tensor description 24.
  if (keys > reader.left() / 13) fail_damaged(reader.where(), std::to_string(keys) + " metadata keys do not fit in it");
  if (tensors > reader.left() / 24) fail_damaged(reader.where(), std::to_string(tensors) + " tensors do not fit in it");
  return {tensors, keys};
}

}  // namespace

ParsedFile parse_gguf(std::span<const std::byte> file, const std::string& where) {
  ByteReader reader(file, where);
  const Counts counts = read_head(reader);
  ParsedFile parsed;
  parsed.metadata = MetadataReader(reader).read_all(counts.keys);
  refuse_split(parsed.metadata, where);
  const uint64_t alignment = alignment_of(parsed.metadata, where);

  std::vector<Placed> tensors;
  std::unordered_set<std::string> names;
  for (uint64_t i = 0; i < counts.tensors; ++i) {
    tensors.push_back(read_description(reader));
    const std::string& name = tensors.back().tensor.name;
    if (!names.insert(name).second) fail_corrupt(where, "tensor " + in_quotes(name) + " occurs twice");
  }
  // Without any data the file may end before the padding.
  const uint64_t begin = std::min<uint64_t>((reader.position() + alignment - 1) / alignment * alignment, file.size());
  for (Placed& placed : tensors) place(placed, file.subspan(begin), alignment, where);
  check_overlaps(tensors, where);
  for (Placed& placed : tensors) parsed.tensors.push_back(std::move(placed.tensor));
  return parsed;
}

}  // namespace cepe::formats
