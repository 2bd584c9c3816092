// Pickles as data: the values that a pickle describes, as a graph. Nothing is imported or called; what Python would
// call stays a value of kind `call` that names the function. Protocols 2 to 5 (binary opcodes).
// https://docs.python.org/3/library/pickletools.html
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace cepe::formats {

struct PickleValue {
  enum class Kind : uint8_t {
    none,
    boolean,
    integer,     // number
    real,        // not kept: no tensor needs one
    text,        // text; also byte strings and arrays
    tuple,       // items
    list,        // items; also sets
    mapping,     // items: key, value, key, value...
    global,      // text: "module name"
    call,        // items: function, arguments, and the state that it was given, where it was given one
    persistent,  // items: the id, which the container of the pickle understands
  };
  Kind kind = Kind::none;
  int64_t number = 0;
  std::string_view text;        // into the pickle's bytes
  std::vector<uint32_t> items;  // indices into Pickle::values. Lists and mappings may hold themselves
};

struct Pickle {
  std::vector<PickleValue> values;
  uint32_t root = 0;
};

// `allowed` holds the globals the pickle may refer to, as "module name"; it outlives the Pickle.
// collections.OrderedDict among them becomes a mapping. At most 64 MiB and two million values are read. Errors:
// corrupt; unsupported for other globals (named) and for opcodes that need Python. Each names the byte.
Pickle read_pickle(std::span<const std::byte> bytes, std::span<const std::string_view> allowed,
                   const std::string& where);

}  // namespace cepe::formats
