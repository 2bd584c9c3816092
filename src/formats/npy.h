// NumPy's .npy files, versions 1 to 3: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
#pragma once

#include <span>
#include <string>

#include "formats/numpy_array.h"

namespace cepe::formats {

// A view into `file`. Errors: corrupt; unsupported for other types, big-endian numbers and Fortran's order, naming
// `where`.
NumpyArray parse_npy(std::span<const std::byte> file, const std::string& where);

// What stands before the data of an array, in version 1; a multiple of 64 bytes.
std::string npy_header(const NumpyType& type, std::span<const int64_t> shape);

}  // namespace cepe::formats
