#include "formats/torch_bin.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <unordered_set>

#include "formats/byte_reader.h"
#include "formats/dtype.h"
#include "formats/pickle.h"
#include "formats/zip.h"

namespace cepe::formats {
namespace {

using Kind = PickleValue::Kind;

constexpr size_t max_tensor_dimensions = 16;
constexpr std::string_view rebuild_tensor = "torch._utils _rebuild_tensor_v2";
constexpr std::string_view rebuild_parameter = "torch._utils _rebuild_parameter";

// All that a pickle may refer to. Of these only tensors and OrderedDict are understood; the others are values that
// stand beside tensors and are skipped.
constexpr std::array<std::string_view, 26> torch_globals{
    rebuild_tensor,          rebuild_parameter,      "collections OrderedDict",
    "torch DoubleStorage",   "torch FloatStorage",   "torch HalfStorage",
    "torch BFloat16Storage", "torch LongStorage",    "torch IntStorage",
    "torch ShortStorage",    "torch CharStorage",    "torch ByteStorage",
    "torch BoolStorage",     "torch Size",           "torch device",
    "torch float64",         "torch float32",        "torch float16",
    "torch bfloat16",        "torch int64",          "torch int32",
    "_codecs encode",        "builtins set",         "__builtin__ set",
    "builtins bytearray",    "__builtin__ bytearray"};

std::optional<DType> storage_type(std::string_view global) {
  constexpr std::array<std::pair<std::string_view, DType>, 10> types{{{"torch DoubleStorage", DType::float64},
                                                                      {"torch FloatStorage", DType::float32},
                                                                      {"torch HalfStorage", DType::float16},
                                                                      {"torch BFloat16Storage", DType::bfloat16},
                                                                      {"torch LongStorage", DType::int64},
                                                                      {"torch IntStorage", DType::int32},
                                                                      {"torch ShortStorage", DType::int16},
                                                                      {"torch CharStorage", DType::int8},
                                                                      {"torch ByteStorage", DType::uint8},
                                                                      {"torch BoolStorage", DType::boolean}}};
  for (const auto& [name, type] : types) {
    if (name == global) return type;
  }
  return std::nullopt;
}

// A tensor as the pickle describes it; offset, strides and storage count in elements.
struct TensorDescription {
  DType type = DType::float32;
  std::string storage;
  int64_t storage_count = 0;
  int64_t offset = 0;
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;
};

// Reads descriptions of tensors out of the pickle's graph. Every step goes to an earlier value (tuples and calls hold
// only what was there before them), so no cycle is followed.
class Descriptions {
 public:
  Descriptions(const Pickle& pickle, const std::string& where) : pickle_(pickle), where_(where) {}

  bool is_tensor(uint32_t index) const {
    const PickleValue& value = at(index);
    if (value.kind != Kind::call) return false;
    const std::string_view function = at(value.items[0]).text;
    return function == rebuild_tensor || function == rebuild_parameter;
  }

  // The value of a tensor's key; `where` names it.
  TensorDescription describe(uint32_t index, const std::string& where) const {
    for (int wrapped = 0; wrapped < 4; ++wrapped) {
      const PickleValue& call = at(index);
      if (!is_tensor(index)) break;
      const auto& arguments = at(call.items[1]).items;
      if (at(call.items[0]).text == rebuild_tensor) return rebuilt(arguments, where);
      if (arguments.empty()) break;
      index = arguments[0];  // _rebuild_parameter(data, requires_grad, hooks)
    }
    fail_corrupt(where, "does not hold a tensor where one is expected");
  }

  // Keys and values of the mapping that holds the tensors.
  const std::vector<uint32_t>& entries() const {
    const PickleValue& root = at(pickle_.root);
    if (root.kind != Kind::mapping) fail_unsupported(where_, "the pickle holds no mapping of names to tensors");
    if (holds_tensors(root)) return root.items;
    for (const std::string_view field : {"state_dict", "model"}) {
      for (size_t i = 0; i + 1 < root.items.size(); i += 2) {
        const PickleValue& inner = at(root.items[i + 1]);
        const bool named = at(root.items[i]).kind == Kind::text && at(root.items[i]).text == field;
        if (named && inner.kind == Kind::mapping && holds_tensors(inner)) return inner.items;
      }
    }
    fail_unsupported(where_, "the pickle holds no tensor in its mapping, nor in its 'state_dict' or 'model'");
  }

 private:
  const PickleValue& at(uint32_t index) const { return pickle_.values[index]; }

  bool holds_tensors(const PickleValue& mapping) const {
    for (size_t i = 1; i < mapping.items.size(); i += 2) {
      if (is_tensor(mapping.items[i])) return true;
    }
    return false;
  }

  int64_t integer(uint32_t index, const char* what, const std::string& where) const {
    const PickleValue& value = at(index);
    if (value.kind != Kind::integer || value.number < 0) {
      fail_corrupt(where, std::string(what) + " must be whole numbers from 0 to 2^63 - 1");
    }
    return value.number;
  }

  std::vector<int64_t> integers(uint32_t index, const char* what, const std::string& where) const {
    const PickleValue* value = &at(index);
    if (value->kind == Kind::call && at(value->items[0]).text == "torch Size") {
      const auto& arguments = at(value->items[1]).items;
      if (arguments.size() == 1) value = &at(arguments[0]);
    }
    if ((value->kind != Kind::tuple && value->kind != Kind::list) || value->items.size() > max_tensor_dimensions) {
      fail_corrupt(where, std::string(what) + " must be a tuple of at most " + std::to_string(max_tensor_dimensions));
    }
    std::vector<int64_t> numbers;
    for (const uint32_t item : value->items) numbers.push_back(integer(item, what, where));
    return numbers;
  }

  // _rebuild_tensor_v2(storage, storage_offset, size, stride, requires_grad, backward_hooks, ...)
  TensorDescription rebuilt(const std::vector<uint32_t>& arguments, const std::string& where) const {
    if (arguments.size() < 4) fail_corrupt(where, "a tensor of fewer than four parts");
    TensorDescription tensor;
    read_storage(at(arguments[0]), tensor, where);
    tensor.offset = integer(arguments[1], "storage offsets", where);
    tensor.shape = integers(arguments[2], "sizes", where);
    tensor.strides = integers(arguments[3], "strides", where);
    if (tensor.shape.size() != tensor.strides.size()) {
      fail_corrupt(where, "sizes " + shape_text(tensor.shape) + " and strides " + shape_text(tensor.strides) +
                              " differ in number");
    }
    return tensor;
  }

  // persistent id ("storage", class, key, location, number of elements)
  void read_storage(const PickleValue& persistent, TensorDescription& tensor, const std::string& where) const {
    const PickleValue* id = persistent.kind == Kind::persistent ? &at(persistent.items[0]) : nullptr;
    const bool fits = id != nullptr && id->kind == Kind::tuple && id->items.size() == 5 &&
                      at(id->items[0]).text == "storage" && at(id->items[1]).kind == Kind::global &&
                      at(id->items[2]).kind == Kind::text;
    if (!fits) fail_corrupt(where, "its storage is not given as ('storage', class, key, location, size)");
    const auto type = storage_type(at(id->items[1]).text);
    if (!type) fail_corrupt(where, in_quotes(at(id->items[1]).text) + " is no class of storages");
    tensor.type = *type;
    tensor.storage = at(id->items[2]).text;
    tensor.storage_count = integer(id->items[4], "storage sizes", where);
  }

  const Pickle& pickle_;
  const std::string& where_;
};

// The last element's index plus one, in the storage; nothing where that exceeds 2^63 - 1.
std::optional<int64_t> extent(const TensorDescription& tensor) {
  int64_t last = tensor.offset;
  for (size_t i = 0; i < tensor.shape.size(); ++i) {
    if (tensor.shape[i] == 0) return tensor.offset;
    int64_t reach = 0;
    if (__builtin_mul_overflow(tensor.shape[i] - 1, tensor.strides[i], &reach)) return std::nullopt;
    if (__builtin_add_overflow(last, reach, &last)) return std::nullopt;
  }
  if (__builtin_add_overflow(last, 1, &last)) return std::nullopt;
  return last;
}

bool is_contiguous(const TensorDescription& tensor) {
  int64_t expected = 1;
  for (size_t i = tensor.shape.size(); i-- > 0;) {
    if (tensor.shape[i] != 1 && tensor.strides[i] != expected) return false;
    expected *= tensor.shape[i];
  }
  return true;
}

// Elements of `size` bytes into row-major order, the last dimension fastest.
void gather(const TensorDescription& tensor, size_t size, const std::byte* storage, std::byte* out, int64_t count) {
  std::vector<int64_t> index(tensor.shape.size(), 0);
  int64_t position = tensor.offset;
  for (int64_t done = 0; done < count; ++done) {
    std::copy_n(storage + static_cast<size_t>(position) * size, size, out);
    out += size;
    for (size_t i = tensor.shape.size(); i-- > 0;) {
      if (++index[i] < tensor.shape[i]) {
        position += tensor.strides[i];
        break;
      }
      position -= tensor.strides[i] * (tensor.shape[i] - 1);
      index[i] = 0;
    }
  }
}

class Archive {
 public:
  Archive(std::span<const std::byte> file, const std::string& where)
      : where_(where), allowance_(file.size() * 16 + (size_t{64} << 20)) {
    for (ZipEntry& entry : read_zip(file, where)) {
      const std::string name = entry.name;
      entries_.emplace(name, std::move(entry));
    }
    find_prefix();
    check_byte_order();
  }

  // The pickle's bytes, held by the Archive where they are compressed.
  std::span<const std::byte> pickle() {
    const ZipEntry& entry = entries_.at(prefix_ + "data.pkl");
    spend(entry.size, "zip entry 'data.pkl'");
    unpacked_pickle_ = unpack(entry, where_);
    return {unpacked_pickle_.get(), entry.size};
  }

  TensorView view(const TensorDescription& tensor, ParsedFile& parsed, const std::string& where) {
    TensorView view{tensor.type, tensor.shape, {}};
    const auto bytes = checked_bytes(tensor.type, tensor.shape);
    const auto end = extent(tensor);
    if (!bytes || !end || *end > tensor.storage_count) {
      fail_corrupt(where, "sizes " + shape_text(tensor.shape) + ", strides " + shape_text(tensor.strides) +
                              " and offset " + std::to_string(tensor.offset) + " reach beyond the storage of " +
                              std::to_string(tensor.storage_count));
    }
    if (*bytes == 0) return view;
    const auto storage = storage_of(tensor, parsed, where);
    const auto size = static_cast<size_t>(block_bytes(tensor.type));
    const auto total = static_cast<size_t>(*bytes);
    if (is_contiguous(tensor)) {
      view.bytes = storage.subspan(static_cast<size_t>(tensor.offset) * size, total);
      return view;
    }
    spend(total, where);
    parsed.held.push_back(std::make_unique_for_overwrite<std::byte[]>(total));
    gather(tensor, size, storage.data(), parsed.held.back().get(), static_cast<int64_t>(total / size));
    view.bytes = {parsed.held.back().get(), total};
    return view;
  }

 private:
  void find_prefix() {
    size_t found = 0;
    for (const auto& [name, entry] : entries_) {
      if (name != "data.pkl" && !name.ends_with("/data.pkl")) continue;
      prefix_ = name.substr(0, name.size() - std::string_view("data.pkl").size());
      ++found;
    }
    if (found != 1) {
      fail_unsupported(where_, "a zip archive with " + std::to_string(found) +
                                   " entries data.pkl, expected one (is it "
                                   "a PyTorch file?)");
    }
  }

  void check_byte_order() {
    const auto entry = entries_.find(prefix_ + "byteorder");
    if (entry == entries_.end() || entry->second.size > 16) return;
    const auto content = unpack(entry->second, where_);
    const std::string_view order(reinterpret_cast<const char*>(content.get()), entry->second.size);
    if (order != "little") fail_unsupported(where_, "byte order " + in_quotes(order) + "; only 'little' is read");
  }

  // The storage's bytes; unpacked once where it is compressed.
  std::span<const std::byte> storage_of(const TensorDescription& tensor, ParsedFile& parsed, const std::string& where) {
    const auto found = entries_.find(prefix_ + "data/" + tensor.storage);
    if (found == entries_.end())
      fail_corrupt(where, "its storage, zip entry " + in_quotes(tensor.storage) + ", is missing");
    const ZipEntry& entry = found->second;
    const auto size = static_cast<uint64_t>(block_bytes(tensor.type));
    if (entry.size / size < static_cast<uint64_t>(tensor.storage_count)) {
      fail_corrupt(where, "its storage, zip entry " + in_quotes(tensor.storage) + ", has " +
                              std::to_string(entry.size) + " bytes; expected " + std::to_string(tensor.storage_count) +
                              " elements of " + std::to_string(size));
    }
    if (!entry.deflated) return entry.data;
    auto& unpacked = unpacked_[tensor.storage];
    if (unpacked.empty()) {
      spend(entry.size, where);
      parsed.held.push_back(unpack(entry, where_));
      unpacked = {parsed.held.back().get(), entry.size};
    }
    return unpacked;
  }

  // Unpacked and copied bytes are limited, so that a small file cannot fill the memory.
  void spend(uint64_t bytes, const std::string& where) {
    if (bytes > allowance_) {
      fail_unsupported(where, "compressed or strided to more than 16 times the file's size (and 64 MiB)");
    }
    allowance_ -= bytes;
  }

  const std::string& where_;
  uint64_t allowance_;
  std::map<std::string, ZipEntry> entries_;
  std::string prefix_;
  std::unique_ptr<std::byte[]> unpacked_pickle_;
  std::map<std::string, std::span<const std::byte>> unpacked_;
};

}  // namespace

ParsedFile parse_torch_bin(std::span<const std::byte> file, const std::string& where) {
  if (!file.empty() && file[0] == std::byte{0x80}) {
    fail_unsupported(where,
                     "PyTorch's format before version 1.6 (a bare pickle, no zip archive); load and save it again "
                     "with a newer PyTorch");
  }
  Archive archive(file, where);
  const Pickle pickle = read_pickle(archive.pickle(), torch_globals, where + ": data.pkl");
  const Descriptions descriptions(pickle, where);
  ParsedFile parsed;
  std::unordered_set<std::string_view> names;
  const auto& entries = descriptions.entries();
  for (size_t i = 0; i + 1 < entries.size(); i += 2) {
    if (!descriptions.is_tensor(entries[i + 1])) continue;
    const PickleValue& key = pickle.values[entries[i]];
    if (key.kind != Kind::text || !is_utf8(key.text)) {
      fail_corrupt(where, "the name of tensor " + std::to_string(i / 2) + " is no UTF-8 text");
    }
    const std::string here = where + ": tensor " + in_quotes(key.text);
    if (!names.insert(key.text).second) fail_corrupt(here, "occurs twice");
    parsed.tensors.push_back(
        {std::string(key.text), archive.view(descriptions.describe(entries[i + 1], here), parsed, here)});
  }
  return parsed;
}

}  // namespace cepe::formats
