// UTF-8: one character at a time, and mending what is none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace cepe::text {

constexpr std::string_view space_marker = "\xE2\x96\x81";  // U+2581, which stands for a space in SentencePiece's tokens

struct Character {
  char32_t code = 0xFFFD;
  uint8_t size = 1;         // bytes it takes; where not valid, those that one U+FFFD stands for (the maximal subpart)
  bool valid = false;       // well-formed, no surrogate, at most U+10FFFF
  bool incomplete = false;  // not valid only because the text ends here
};

// The character that starts at `at` (at < text.size()).
Character character_at(std::string_view text, size_t at);
void append_character(std::string& text, char32_t code);
bool is_utf8(std::string_view text);
// Length of `text` without an unfinished character at its end.
size_t complete_prefix(std::string_view text);
// Every maximal ill-formed part becomes one U+FFFD, as in Python's errors="replace" (Unicode, table 3-8).
std::string replace_invalid(std::string_view text);
// The same with one mask byte per byte of text; `mask` is rewritten to fit the result.
std::string replace_invalid(std::string_view text, std::string& mask);

}  // namespace cepe::text
