// Pickles of one NumPy array, read as data: nothing in them is imported or called.
#pragma once

#include <span>
#include <string>

#include "formats/numpy_array.h"

namespace cepe::formats {

// A view into the pickle's bytes. As numpy 1 and 2 write arrays in protocols 3 to 5. Errors: corrupt; unsupported for
// anything else than one array of numbers in C's order, naming `where`.
NumpyArray parse_numpy_pickle(std::span<const std::byte> bytes, const std::string& where);

// The same array as a pickle of protocol 4 that numpy 1 and 2 load.
std::string numpy_pickle(const NumpyArray& array);

}  // namespace cepe::formats
