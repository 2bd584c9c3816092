#include "text/byte_tokens.h"

#include <charconv>
#include <cstdio>

namespace cepe::text {

std::array<Token, 256> byte_tokens_of(const Vocabulary& vocabulary) {
  std::array<Token, 256> tokens;
  for (unsigned byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    tokens[byte] = vocabulary.find(name);
  }
  return tokens;
}

std::optional<uint8_t> byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return {};
  uint8_t byte = 0;
  const auto [end, error] = std::from_chars(token.data() + 3, token.data() + 5, byte, 16);
  if (error != std::errc() || end != token.data() + 5) return {};
  return byte;
}

}  // namespace cepe::text
