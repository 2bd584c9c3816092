#include "text/byte_level.h"

#include <array>

#include "text/utf8.h"

namespace cepe::text {
namespace {

bool stands_for_itself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Alphabet {
  std::array<std::string, 256> characters;
  std::array<int16_t, 0x144> bytes;  // by character, -1 where it stands for none
  Alphabet() {
    bytes.fill(-1);
    char32_t next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const char32_t character = stands_for_itself(byte) ? static_cast<char32_t>(byte) : next++;
      append_character(characters[static_cast<size_t>(byte)], character);
      bytes[character] = static_cast<int16_t>(byte);
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet instance;
  return instance;
}

}  // namespace

std::string_view byte_character(uint8_t byte) { return alphabet().characters[byte]; }

void append_byte_characters(std::string& out, std::string_view bytes) {
  const auto& characters = alphabet().characters;
  for (const char byte : bytes) out += characters[static_cast<uint8_t>(byte)];
}

std::string bytes_of_characters(std::string_view token) {
  const auto& bytes = alphabet().bytes;
  std::string out;
  for (size_t at = 0; at < token.size();) {
    const Character character = character_at(token, at);
    if (!character.valid || character.code >= bytes.size() || bytes[character.code] < 0) return std::string(token);
    out += static_cast<char>(bytes[character.code]);
    at += character.size;
  }
  return out;
}

}  // namespace cepe::text
