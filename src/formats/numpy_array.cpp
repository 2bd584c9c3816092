#include "formats/numpy_array.h"

#include <array>
#include <cstring>
#include <limits>
#include <utility>

#include "base/half.h"
#include "formats/byte_reader.h"
#include "formats/dtype.h"

namespace cepe::formats {
namespace {

constexpr std::array<std::pair<std::string_view, NumpyType>, 12> named_types{{{"int8", {'i', 1}},
                                                                              {"int16", {'i', 2}},
                                                                              {"int32", {'i', 4}},
                                                                              {"int64", {'i', 8}},
                                                                              {"uint8", {'u', 1}},
                                                                              {"uint16", {'u', 2}},
                                                                              {"uint32", {'u', 4}},
                                                                              {"uint64", {'u', 8}},
                                                                              {"float16", {'f', 2}},
                                                                              {"float32", {'f', 4}},
                                                                              {"float64", {'f', 8}},
                                                                              {"bool", {'b', 1}}}};

template <class T>
int64_t stored(const std::byte* bytes, const std::string& where) {
  T value = 0;
  std::memcpy(&value, bytes, sizeof(T));
  if (std::cmp_greater(value, std::numeric_limits<int64_t>::max()))
    fail_corrupt(where, "the number " + std::to_string(value) + " is above 2^63 - 1");
  return static_cast<int64_t>(value);
}

int64_t value_at(const NumpyArray& array, int64_t place, const std::string& where) {
  const std::byte* bytes = array.bytes.data() + place * array.type.size;
  switch (array.type.size + (array.type.kind == 'u' ? 16 : 0)) {
    case 1:
      return stored<int8_t>(bytes, where);
    case 2:
      return stored<int16_t>(bytes, where);
    case 4:
      return stored<int32_t>(bytes, where);
    case 8:
      return stored<int64_t>(bytes, where);
    case 17:
      return stored<uint8_t>(bytes, where);
    case 18:
      return stored<uint16_t>(bytes, where);
    case 20:
      return stored<uint32_t>(bytes, where);
    default:
      return stored<uint64_t>(bytes, where);
  }
}

void check_range(const NumpyArray& array, int64_t first, int64_t count, const std::string& where) {
  if (first < 0 || count > array.count() || first > array.count() - count) {
    fail_corrupt(where, std::to_string(count) + " values wanted from place " + std::to_string(first) + "; there are " +
                            std::to_string(array.count()));
  }
}

void check_integers(const NumpyArray& array, int64_t first, int64_t count, const std::string& where) {
  if (array.type.kind != 'i' && array.type.kind != 'u')
    fail_unsupported(where, "an array of type " + code_of(array.type) + "; expected integers");
  check_range(array, first, count, where);
}

template <class T>
T bits_at(const NumpyArray& array, int64_t place) {
  T value{};
  std::memcpy(&value, array.bytes.data() + place * array.type.size, sizeof(T));
  return value;
}

}  // namespace

std::optional<NumpyType> numpy_type_of_code(std::string_view code) {
  const bool ordered = !code.empty() && std::string_view("<|=>").find(code[0]) != std::string_view::npos;
  const char order = ordered ? code[0] : '<';
  if (ordered) code.remove_prefix(1);
  if (code == "?") code = "b1";
  if (code.size() != 2 || code[1] < '1' || code[1] > '8') return std::nullopt;
  const NumpyType type{code[0], code[1] - '0'};
  if (type.size > 1 && (order == '>' || order == '|')) return std::nullopt;
  for (const auto& [name, known] : named_types) {
    if (known == type) return type;
  }
  return std::nullopt;
}

std::optional<NumpyType> numpy_type_of_name(std::string_view name) {
  for (const auto& [known, type] : named_types) {
    if (known == name) return type;
  }
  return std::nullopt;
}

std::string code_of(const NumpyType& type) {
  return (type.size == 1 ? "|" : "<") + std::string(1, type.kind) + std::to_string(type.size);
}

NumpyArray checked_array(const NumpyType& type, std::vector<int64_t> shape, std::span<const std::byte> bytes,
                         const std::string& where) {
  const std::optional<int64_t> count = checked_count(shape);
  const auto size = static_cast<uint64_t>(type.size);
  if (!count || static_cast<uint64_t>(*count) != bytes.size() / size || bytes.size() % size != 0) {
    fail_damaged(where, "shape " + shape_text(shape) + " of " + code_of(type) + " does not go with " +
                            std::to_string(bytes.size()) + " bytes of data");
  }
  return {type, std::move(shape), bytes};
}

void read_integers(const NumpyArray& array, int64_t first, int64_t least, int64_t most, std::span<int32_t> out,
                   const std::string& where) {
  check_integers(array, first, static_cast<int64_t>(out.size()), where);
  for (size_t i = 0; i < out.size(); ++i) {
    const int64_t value = value_at(array, first + static_cast<int64_t>(i), where);
    if (value < least || value > most) {
      fail_corrupt(where, "value " + std::to_string(value) + " at place " +
                              std::to_string(first + static_cast<int64_t>(i)) + "; expected " + std::to_string(least) +
                              " to " + std::to_string(most));
    }
    out[i] = static_cast<int32_t>(value);
  }
}

int64_t integer_at(const NumpyArray& array, int64_t place, const std::string& where) {
  check_integers(array, place, 1, where);
  return value_at(array, place, where);
}

void read_floats(const NumpyArray& array, int64_t first, std::span<float> out, const std::string& where) {
  if (array.type.kind != 'f')
    fail_unsupported(where, "an array of type " + code_of(array.type) + "; expected floating-point numbers");
  check_range(array, first, static_cast<int64_t>(out.size()), where);
  for (size_t i = 0; i < out.size(); ++i) {
    const int64_t place = first + static_cast<int64_t>(i);
    out[i] = array.type.size == 2   ? base::float16_to_float(bits_at<uint16_t>(array, place))
             : array.type.size == 4 ? bits_at<float>(array, place)
                                    : static_cast<float>(bits_at<double>(array, place));
  }
}

}  // namespace cepe::formats
