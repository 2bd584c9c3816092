#include "text/utf8.h"

#include <cstring>

namespace cepe::text {
namespace {

constexpr std::string_view replacement = "\xEF\xBF\xBD";

uint8_t byte_at(std::string_view text, size_t at) { return static_cast<uint8_t>(text[at]); }

// What may follow a leading byte (Unicode, table 3-7).
struct Lead {
  int following;      // continuation bytes; -1 where the byte cannot start a character
  uint8_t low, high;  // range of the first of them
};

Lead lead_of(uint8_t byte) {
  if (byte < 0xC2) return {-1, 0, 0};
  if (byte < 0xE0) return {1, 0x80, 0xBF};
  if (byte == 0xE0) return {2, 0xA0, 0xBF};
  if (byte == 0xED) return {2, 0x80, 0x9F};
  if (byte < 0xF0) return {2, 0x80, 0xBF};
  if (byte == 0xF0) return {3, 0x90, 0xBF};
  if (byte < 0xF4) return {3, 0x80, 0xBF};
  if (byte == 0xF4) return {3, 0x80, 0x8F};
  return {-1, 0, 0};
}

// Bytes of plain ASCII from `at`, eight at a time.
size_t ascii_run(std::string_view text, size_t at) {
  size_t end = at;
  for (uint64_t word = 0; end + 8 <= text.size(); end += 8) {
    std::memcpy(&word, text.data() + end, 8);
    if (word & 0x8080808080808080ULL) break;
  }
  while (end < text.size() && byte_at(text, end) < 0x80) ++end;
  return end - at;
}

template <class Bad>
void walk(std::string_view text, Bad&& on_character) {
  for (size_t at = 0; at < text.size();) {
    if (const size_t run = ascii_run(text, at)) {
      on_character(at, run, true);
      at += run;
      continue;
    }
    const Character character = character_at(text, at);
    on_character(at, character.size, character.valid);
    at += character.size;
  }
}

}  // namespace

Character character_at(std::string_view text, size_t at) {
  const uint8_t first = byte_at(text, at);
  if (first < 0x80) return {first, 1, true, false};
  const Lead lead = lead_of(first);
  if (lead.following < 0) return {0xFFFD, 1, false, false};
  char32_t code = first & (0x3F >> lead.following);
  for (int i = 1; i <= lead.following; ++i) {
    if (at + i == text.size()) return {0xFFFD, static_cast<uint8_t>(i), false, true};
    const uint8_t next = byte_at(text, at + i);
    const uint8_t low = i == 1 ? lead.low : 0x80, high = i == 1 ? lead.high : 0xBF;
    if (next < low || next > high) return {0xFFFD, static_cast<uint8_t>(i), false, false};
    code = (code << 6) | (next & 0x3F);
  }
  return {code, static_cast<uint8_t>(lead.following + 1), true, false};
}

void append_character(std::string& text, char32_t code) {
  if (code < 0x80) {
    text += static_cast<char>(code);
  } else if (code < 0x800) {
    text += static_cast<char>(0xC0 | (code >> 6));
    text += static_cast<char>(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    text += static_cast<char>(0xE0 | (code >> 12));
    text += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
    text += static_cast<char>(0x80 | (code & 0x3F));
  } else {
    text += static_cast<char>(0xF0 | (code >> 18));
    text += static_cast<char>(0x80 | ((code >> 12) & 0x3F));
    text += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
    text += static_cast<char>(0x80 | (code & 0x3F));
  }
}

bool is_utf8(std::string_view text) {
  bool all_valid = true;
  walk(text, [&](size_t, size_t, bool valid) { all_valid = all_valid && valid; });
  return all_valid;
}

size_t complete_prefix(std::string_view text) {
  for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const size_t at = text.size() - back;
    if (byte_at(text, at) < 0x80) break;
    if (byte_at(text, at) < 0xC0) continue;
    const Character character = character_at(text, at);
    if (character.incomplete && character.size == back) return at;
    break;
  }
  return text.size();
}

std::string replace_invalid(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  walk(text, [&](size_t at, size_t size, bool valid) { out += valid ? text.substr(at, size) : replacement; });
  return out;
}

std::string replace_invalid(std::string_view text, std::string& mask) {
  std::string out, out_mask;
  walk(text, [&](size_t at, size_t size, bool valid) {
    out += valid ? text.substr(at, size) : replacement;
    if (valid) {
      out_mask.append(mask, at, size);
    } else {
      char masked = 0;
      for (size_t i = at; i < at + size; ++i) masked |= mask[i];
      out_mask.append(replacement.size(), masked);
    }
  });
  mask = std::move(out_mask);
  return out;
}

}  // namespace cepe::text
