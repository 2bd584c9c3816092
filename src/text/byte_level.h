// GPT-2's printable alphabet for bytes: every byte is one character (a space is U+0120), so that a vocabulary of
// visible strings covers any text. Source: the published GPT-2 encoder, bytes_to_unicode.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace cepe::text {

// The UTF-8 (one or two bytes) of the character for a byte.
std::string_view byte_character(uint8_t byte);
void append_byte_characters(std::string& out, std::string_view bytes);
// The bytes of a token; a token with any other character stands for itself.
std::string bytes_of_characters(std::string_view token);

}  // namespace cepe::text
