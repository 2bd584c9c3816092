#include "formats/numpy_pickle.h"

#include <algorithm>
#include <array>

#include "formats/byte_reader.h"
#include "formats/pickle.h"

namespace cepe::formats {
namespace {

using Kind = PickleValue::Kind;

constexpr std::string_view dtype = "numpy dtype", ndarray = "numpy ndarray";
constexpr std::array<std::string_view, 6> numpy_globals{"numpy.core.multiarray _reconstruct",
                                                        "numpy._core.multiarray _reconstruct",
                                                        "numpy.core.numeric _frombuffer",
                                                        "numpy._core.numeric _frombuffer",
                                                        dtype,
                                                        ndarray};
constexpr size_t most_pickled_dimensions = 32;

// Every step goes to the parts of a value that are named one by one, so no cycle is followed.
class PickledArray {
 public:
  PickledArray(const Pickle& pickle, const std::string& where) : pickle_(pickle), where_(where) {}

  NumpyArray array() const {
    const PickleValue& root = at(pickle_.root);
    if (root.kind != Kind::call) fail_unsupported(where_, "the pickle does not hold an array");
    const std::string_view function = at(root.items[0]).text;
    const auto& arguments = at(root.items[1]).items;
    // _frombuffer(bytes, dtype, shape, order), and no state
    if (function.ends_with(" _frombuffer")) {
      if (arguments.size() != 4) fail("an array of " + std::to_string(arguments.size()) + " parts, expected 4");
      if (text(arguments[3]) != "C" && shape(arguments[2]).size() > 1) in_fortrans_order();
      return checked_array(type(arguments[1]), shape(arguments[2]), bytes(arguments[0]), where_);
    }
    // _reconstruct(ndarray, (0,), b"b") with the state (version, shape, dtype, is_fortran, bytes)
    if (!function.ends_with(" _reconstruct") || root.items.size() != 3)
      fail_unsupported(where_, "the pickle holds " + in_quotes(function) + ", not an array");
    const auto& state = tuple(root.items[2], 5, "an array's state");
    if (at(state[3]).kind != Kind::boolean) fail("an array's order is no boolean");
    if (at(state[3]).number != 0 && shape(state[1]).size() > 1) in_fortrans_order();
    return checked_array(type(state[2]), shape(state[1]), bytes(state[4]), where_);
  }

 private:
  const PickleValue& at(uint32_t index) const { return pickle_.values[index]; }
  [[noreturn]] void fail(const std::string& what) const { fail_corrupt(where_, "pickle: " + what); }
  [[noreturn]] void in_fortrans_order() const {
    fail_unsupported(where_, "an array in Fortran's order; only C's is read");
  }

  std::string_view text(uint32_t index) const {
    if (at(index).kind != Kind::text) fail("a string is expected");
    return at(index).text;
  }
  std::span<const std::byte> bytes(uint32_t index) const {
    if (at(index).kind != Kind::text)
      fail_unsupported(where_, "the array's data are not plain bytes (protocols 3 to 5)");
    return std::as_bytes(std::span(at(index).text.data(), at(index).text.size()));
  }
  const std::vector<uint32_t>& tuple(uint32_t index, size_t size, const char* what) const {
    if (at(index).kind != Kind::tuple || at(index).items.size() < size)
      fail(std::string(what) + " must be a tuple of " + std::to_string(size));
    return at(index).items;
  }

  std::vector<int64_t> shape(uint32_t index) const {
    std::vector<int64_t> sizes;
    for (const uint32_t item : tuple(index, 0, "a shape")) {
      if (at(item).kind != Kind::integer || at(item).number < 0 || sizes.size() == most_pickled_dimensions)
        fail("a shape must hold at most 32 sizes that are not negative");
      sizes.push_back(at(item).number);
    }
    return sizes;
  }

  // dtype("i8", False, True) with the state (3, "<", None, None, None, -1, -1, 0)
  NumpyType type(uint32_t index) const {
    const PickleValue& call = at(index);
    if (call.kind != Kind::call || at(call.items[0]).text != dtype) fail("an array's type is no dtype");
    const auto& arguments = at(call.items[1]).items;
    if (arguments.empty()) fail("a dtype without a name");
    std::string code;
    if (call.items.size() > 2) code = text(tuple(call.items[2], 2, "a dtype's state")[1]);
    code += text(arguments[0]);
    const std::optional<NumpyType> known = numpy_type_of_code(code);
    if (!known)
      fail_unsupported(where_, "an array of type " + in_quotes(code) + "; read are little-endian integers and floats");
    return *known;
  }

  const Pickle& pickle_;
  const std::string& where_;
};

// The opcodes of protocol 4 that an array needs.
class Writer {
 public:
  Writer& text(std::string_view value) {  // SHORT_BINUNICODE
    out_ += '\x8c';
    out_ += static_cast<char>(value.size());
    out_ += value;
    return *this;
  }
  Writer& global(std::string_view module, std::string_view name) { return text(module).text(name).raw("\x93"); }
  Writer& number(int64_t value) {  // LONG1 of eight bytes
    out_.append("\x8a\x08");
    return little_endian(value);
  }
  Writer& bytes(std::span<const std::byte> value) {  // BINBYTES8
    out_ += '\x8e';
    little_endian(static_cast<int64_t>(value.size()));
    out_.append(reinterpret_cast<const char*>(value.data()), value.size());
    return *this;
  }
  Writer& raw(std::string_view opcodes) {
    out_ += opcodes;
    return *this;
  }
  std::string take() { return std::move(out_); }

 private:
  Writer& little_endian(int64_t value) {
    out_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  std::string out_;
};

}  // namespace

NumpyArray parse_numpy_pickle(std::span<const std::byte> bytes, const std::string& where) {
  const Pickle pickle = read_pickle(bytes, numpy_globals, where);
  return PickledArray(pickle, where).array();
}

std::string numpy_pickle(const NumpyArray& array) {
  const std::string code = code_of(array.type);
  Writer writer;
  writer.raw("\x80\x04").global("numpy.core.multiarray", "_reconstruct").global("numpy", "ndarray");
  writer.raw(std::string_view("K\0\x85", 3)).raw("C\1b").raw("\x87R");  // ((ndarray, (0,), b"b"), called
  writer.raw("(K\1(");                                                  // state: version 1, shape
  for (const int64_t size : array.shape) writer.number(size);
  writer.raw("t").global("numpy", "dtype").text(std::string_view(code).substr(1)).raw("\x89\x88\x87R");
  writer.raw("(K\3").text(code.substr(0, 1)).raw("NNN").raw("J\xff\xff\xff\xff").raw("J\xff\xff\xff\xff");
  writer.raw(std::string_view("K\0tb\x89", 5)).bytes(array.bytes).raw("tb.");
  return writer.take();
}

}  // namespace cepe::formats
