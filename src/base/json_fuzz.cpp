// Any bytes either parse or are refused with a base::Error; typed access to what parsed behaves likewise.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "base/json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  using namespace cepe::base;
  try {
    const Json json = parse_json({reinterpret_cast<const char*>(bytes), size}, "fuzz.json");
    if (!json.is_object()) return 0;
    for (const auto& field : json.items()) {
      const char* name = field.key().c_str();
      if (!json_has(json, name)) continue;
      try {
        json_integer(json, name, "fuzz.json");
      } catch (const Error&) {
        json_string(json, name, "fuzz.json");
      }
    }
  } catch (const Error&) {
  }
  return 0;
}
