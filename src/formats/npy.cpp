#include "formats/npy.h"

#include <limits>

#include "formats/byte_reader.h"

namespace cepe::formats {
namespace {

constexpr std::string_view magic = "\x93NUMPY";
constexpr uint32_t most_header_bytes = 1 << 16;
constexpr size_t most_dimensions = 32;  // NumPy's own limit for long

// The header is a dict as Python prints it: {'descr': '<i8', 'fortran_order': False, 'shape': (3, 4), }
class Header {
 public:
  Header(std::string_view text, const std::string& where) : rest_(text), where_(where) {}

  void parse() {
    expect('{');
    while (!take('}')) {
      const std::string_view key = quoted();
      expect(':');
      if (key == "descr" && !type_) {
        read_type();
      } else if (key == "fortran_order" && !fortran_) {
        fortran_ = word("True") || !require("False");
      } else if (key == "shape" && !shape_) {
        read_shape();
      } else {
        fail("key " + in_quotes(key) + " is unknown or occurs twice");
      }
      if (!take(',')) {
        expect('}');
        break;
      }
    }
    skip_spaces();
    if (!rest_.empty()) fail("something follows the header's dict");
    if (!type_ || !fortran_ || !shape_) fail("the header lacks 'descr', 'fortran_order' or 'shape'");
    if (*fortran_ && shape_->size() > 1) fail_unsupported(where_, "an array in Fortran's order; only C's is read");
  }

  NumpyType type() const { return *type_; }
  std::vector<int64_t> shape() const { return *shape_; }

 private:
  [[noreturn]] void fail(const std::string& what) const { fail_corrupt(where_, "npy header: " + what); }

  void skip_spaces() {
    while (!rest_.empty() && (rest_[0] == ' ' || rest_[0] == '\n')) rest_.remove_prefix(1);
  }
  bool take(char wanted) {
    skip_spaces();
    if (rest_.empty() || rest_[0] != wanted) return false;
    rest_.remove_prefix(1);
    return true;
  }
  void expect(char wanted) {
    if (!take(wanted)) fail(std::string("expected '") + wanted + "' before " + in_quotes(rest_.substr(0, 20)));
  }
  bool word(std::string_view wanted) {
    skip_spaces();
    if (!rest_.starts_with(wanted)) return false;
    rest_.remove_prefix(wanted.size());
    return true;
  }
  bool require(std::string_view wanted) {
    if (!word(wanted)) fail("expected True or False before " + in_quotes(rest_.substr(0, 20)));
    return true;
  }
  std::string_view quoted() {
    const char quote = take('"') ? '"' : '\'';
    if (quote == '\'') expect('\'');
    const size_t end = rest_.find(quote);
    if (end == std::string_view::npos) fail("a string does not end");
    const std::string_view text = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    return text;
  }

  void read_type() {
    skip_spaces();
    if (rest_.starts_with('[')) fail_unsupported(where_, "an array of records; integers and floats are read");
    const std::string_view code = quoted();
    type_ = numpy_type_of_code(code);
    if (!type_) fail_unsupported(where_, "type " + in_quotes(code) + "; read are little-endian integers and floats");
  }

  void read_shape() {
    shape_.emplace();
    expect('(');
    while (!take(')')) {
      shape_->push_back(number());
      if (shape_->size() > most_dimensions) fail("more than " + std::to_string(most_dimensions) + " dimensions");
      if (!take(',')) {
        expect(')');
        break;
      }
    }
  }
  int64_t number() {
    skip_spaces();
    size_t digits = 0;
    int64_t value = 0;
    for (; digits < rest_.size() && rest_[digits] >= '0' && rest_[digits] <= '9'; ++digits) {
      if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, rest_[digits] - '0', &value))
        fail("a size above 2^63 - 1");
    }
    if (digits == 0) fail("expected a size before " + in_quotes(rest_.substr(0, 20)));
    rest_.remove_prefix(digits);
    return value;
  }

  std::string_view rest_;
  const std::string& where_;
  std::optional<NumpyType> type_;
  std::optional<bool> fortran_;
  std::optional<std::vector<int64_t>> shape_;
};

}  // namespace

NumpyArray parse_npy(std::span<const std::byte> file, const std::string& where) {
  ByteReader reader(file, where);
  if (reader.left() < magic.size() || reader.text(magic.size(), "the file") != magic)
    fail_corrupt(where, "not a .npy file: it does not begin with \\x93NUMPY");
  const auto version = reader.read<uint8_t>("the version");
  reader.read<uint8_t>("the version");
  if (version < 1 || version > 3)
    fail_unsupported(where, "version " + std::to_string(version) + " of .npy; read are 1 to 3");
  const uint32_t size =
      version == 1 ? reader.read<uint16_t>("the header's size") : reader.read<uint32_t>("the header's size");
  if (size > most_header_bytes) fail_unsupported(where, "a header of " + std::to_string(size) + " bytes");
  Header header(reader.text(size, "the header"), where);
  header.parse();
  return checked_array(header.type(), header.shape(), reader.take(reader.left(), "the data"), where);
}

std::string npy_header(const NumpyType& type, std::span<const int64_t> shape) {
  std::string dict = "{'descr': '" + code_of(type) + "', 'fortran_order': False, 'shape': (";
  for (const int64_t size : shape) dict.append(std::to_string(size)).append(", ");
  if (shape.size() > 1) dict.resize(dict.size() - 2);
  if (shape.size() == 1) dict.resize(dict.size() - 1);
  dict += "), }";
  const size_t before = magic.size() + 4;
  dict.append(63 - (before + dict.size()) % 64, ' ');
  dict += '\n';
  std::string header(magic);
  header.append({'\1', '\0', static_cast<char>(dict.size() & 0xff), static_cast<char>(dict.size() >> 8)});
  return header + dict;
}

}  // namespace cepe::formats
