// NumPy's arrays as bytes with a type and a shape: what .npy files, MDS shards and pickles of arrays have in common.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace cepe::formats {

struct NumpyType {
  char kind = 'i';   // i, u, f or b (boolean), as in NumPy's array interface
  int64_t size = 8;  // bytes: 1, 2, 4 or 8; floats 2, 4 or 8; booleans 1
  bool operator==(const NumpyType&) const = default;
};

// "<i8", "|u1", "i4", "=f4": little-endian, or of one byte; nothing for any other type.
std::optional<NumpyType> numpy_type_of_code(std::string_view code);
// "int64", "uint16", "float32", "bool"; nothing for any other.
std::optional<NumpyType> numpy_type_of_name(std::string_view name);
std::string code_of(const NumpyType& type);  // "<i8"

// Row-major. bytes.size() is the product of the shape times the type's size; valid as long as what it was read from.
struct NumpyArray {
  NumpyType type;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;

  int64_t count() const { return static_cast<int64_t>(bytes.size()) / type.size; }
};

// With sizes checked against the bytes that are there. Errors: corrupt, naming `where`.
NumpyArray checked_array(const NumpyType& type, std::vector<int64_t> shape, std::span<const std::byte> bytes,
                         const std::string& where);

// out.size() values from `first`, of an array of integers. Errors: unsupported for other types; corrupt for values that
// are outside [least, most], naming `where` and the place.
void read_integers(const NumpyArray& array, int64_t first, int64_t least, int64_t most, std::span<int32_t> out,
                   const std::string& where);
int64_t integer_at(const NumpyArray& array, int64_t place, const std::string& where);
// The same of an array of float16, float32 or float64; values may be anything, NaN too.
void read_floats(const NumpyArray& array, int64_t first, std::span<float> out, const std::string& where);

}  // namespace cepe::formats
