// What fuzz targets do with a file that was accepted: every promise of the reader about its tensors is used.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "formats/content.h"
#include "formats/dtype.h"

namespace cepe::test {

inline void use_tensors(const formats::ParsedFile& parsed) {
  for (const auto& [name, view] : parsed.tensors) {
    const auto bytes = formats::checked_bytes(view.type, view.shape);
    if (!bytes || static_cast<uint64_t>(*bytes) != view.bytes.size()) std::abort();
    for (const std::byte& byte : view.bytes.first(std::min<size_t>(view.bytes.size(), 1 << 16))) {
      [[maybe_unused]] const volatile std::byte read = byte;
    }
    const bool floating = view.type <= formats::DType::bfloat16 || formats::is_quantised(view.type);
    if (!floating || formats::element_count(view) > 1 << 16) continue;
    std::vector<float> values(static_cast<size_t>(formats::element_count(view)));
    formats::to_float(view, values);
  }
}

}  // namespace cepe::test
