// tokenizer.json and a text for it, separated by a zero byte: whatever the file says, reading it ends in a tokenizer or
// in base::Error, and so does using it.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "text/tokenizer_json.h"
#include "text/utf8.h"

namespace {

void use(const cepe::text::Tokenizer& tokenizer, std::string_view text) {
  const auto ids = tokenizer.encode(text, {.add_special = true, .parse_special = true});
  const std::string whole = tokenizer.decode(ids, false);
  cepe::text::StreamDecoder stream(tokenizer, false);
  std::string joined;
  for (const auto id : ids) {
    const std::string part = stream.put(id);
    if (!cepe::text::is_utf8(part)) std::abort();
    joined += part;
  }
  if (joined + stream.finish() != whole) std::abort();
  const std::string mask(text.size(), 1);
  tokenizer.encode(text, {.parse_special = true, .literal_mask = mask});
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t cut = std::min(input.find('\0'), size);
  try {
    const auto tokenizer = cepe::text::tokenizer_from_json(input.substr(0, cut), "tokenizer.json");
    use(*tokenizer, "hello <x> \xF0\x9F\x98\x80 12");
    use(*tokenizer, input.substr(std::min(cut + 1, size)));
  } catch (const cepe::base::Error&) {
  }
  return 0;
}
