#include "text/jinja/text_operations.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>

namespace cepe::text::jinja {
namespace {

// The code point at `begin`, -1 for a byte that is no UTF-8.
int32_t code_point(std::string_view text, size_t begin) {
  utf8proc_int32_t point = -1;
  utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + begin,
                   static_cast<utf8proc_ssize_t>(text.size() - begin), &point);
  return point;
}

size_t previous_character(std::string_view text, size_t end) {
  size_t begin = end - 1;
  while (begin > 0 && end - begin < 4 && (static_cast<unsigned char>(text[begin]) & 0xc0) == 0x80) --begin;
  return next_character(text.substr(0, end), begin) == end ? begin : end - 1;
}

bool is_space(int32_t point) {
  if ((point >= 9 && point <= 13) || (point >= 0x1c && point <= 0x20) || point == 0x85) return true;
  if (point < 0x80) return false;
  const auto category = utf8proc_category(point);
  return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL || category == UTF8PROC_CATEGORY_ZP;
}

bool strips(std::string_view text, size_t begin, size_t end, const std::optional<std::string>& characters) {
  if (!characters) return is_space(code_point(text, begin));
  const std::string_view one = text.substr(begin, end - begin);
  for (size_t at = 0; at < characters->size();) {
    const size_t after = next_character(*characters, at);
    if (std::string_view(*characters).substr(at, after - at) == one) return true;
    at = after;
  }
  return false;
}

std::vector<Text> split_at_spaces(const Text& text, int64_t limit) {
  std::vector<Text> parts;
  size_t at = 0;
  while (true) {
    while (at < text.size() && is_space(code_point(text.bytes, at))) at = next_character(text.bytes, at);
    if (at == text.size()) return parts;
    if (limit >= 0 && static_cast<int64_t>(parts.size()) == limit) {
      parts.push_back(strip(text.part(at, text.size()), Side::right, std::nullopt));
      return parts;
    }
    const size_t begin = at;
    while (at < text.size() && !is_space(code_point(text.bytes, at))) at = next_character(text.bytes, at);
    parts.push_back(text.part(begin, at));
  }
}

}  // namespace

size_t next_character(std::string_view text, size_t begin) {
  utf8proc_int32_t point = 0;
  const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + begin,
                                       static_cast<utf8proc_ssize_t>(text.size() - begin), &point);
  return begin + (length > 0 ? static_cast<size_t>(length) : 1);
}

size_t count_characters(std::string_view text) {
  size_t count = 0;
  for (size_t at = 0; at < text.size(); at = next_character(text, at)) ++count;
  return count;
}

size_t find_in(std::string_view text, std::string_view wanted, size_t begin) {
  if (begin > text.size()) return std::string::npos;
  if (wanted.empty()) return begin;
  const void* found = ::memmem(text.data() + begin, text.size() - begin, wanted.data(), wanted.size());
  return found ? static_cast<size_t>(static_cast<const char*>(found) - text.data()) : std::string::npos;
}

Text strip(const Text& text, Side side, const std::optional<std::string>& characters) {
  size_t begin = 0, end = text.size();
  while (side != Side::right && begin < end) {
    const size_t after = next_character(text.bytes, begin);
    if (!strips(text.bytes, begin, after, characters)) break;
    begin = after;
  }
  while (side != Side::left && begin < end) {
    const size_t before = previous_character(text.bytes, end);
    if (!strips(text.bytes, before, end, characters)) break;
    end = before;
  }
  return text.part(begin, end);
}

std::vector<Text> split(const Text& text, const std::optional<std::string>& separator, int64_t limit) {
  if (!separator) return split_at_spaces(text, limit);
  std::vector<Text> parts;
  size_t begin = 0;
  while (limit < 0 || static_cast<int64_t>(parts.size()) < limit) {
    const size_t end = find_in(text.bytes, *separator, begin);
    if (end == std::string::npos) break;
    parts.push_back(text.part(begin, end));
    begin = end + separator->size();
  }
  parts.push_back(text.part(begin, text.size()));
  return parts;
}

std::vector<Text> split_from_right(const Text& text, const std::string& separator, int64_t limit) {
  std::vector<size_t> places;  // disjoint occurrences counted from the end
  std::string_view rest = text.bytes;
  while (limit < 0 || static_cast<int64_t>(places.size()) < limit) {
    const size_t place = rest.rfind(separator);
    if (place == std::string_view::npos) break;
    places.push_back(place);
    rest = rest.substr(0, place);
  }
  std::vector<Text> parts;
  size_t begin = 0;
  for (auto place = places.rbegin(); place != places.rend(); ++place) {
    parts.push_back(text.part(begin, *place));
    begin = *place + separator.size();
  }
  parts.push_back(text.part(begin, text.size()));
  return parts;
}

std::vector<Text> split_lines(const Text& text, bool keep_ends) {
  std::vector<Text> lines;
  size_t begin = 0;
  while (begin < text.size()) {
    size_t end = text.bytes.find_first_of("\n\r", begin);
    size_t after = text.size();
    if (end == std::string::npos) {
      end = text.size();
    } else {
      after = end + (text.bytes.compare(end, 2, "\r\n") == 0 ? 2 : 1);
    }
    lines.push_back(text.part(begin, keep_ends ? after : end));
    begin = after;
  }
  return lines;
}

Text replace(const Text& text, const std::string& from, const Text& to, int64_t limit) {
  Text result;
  size_t begin = 0;
  for (int64_t count = 0; limit < 0 || count < limit; ++count) {
    const size_t place = find_in(text.bytes, from, begin);
    if (place == std::string::npos) break;
    result.append(text.part(begin, place));
    result.append(to);
    begin = place + from.size();
    if (from.empty()) {  // between all characters, as Python does
      if (begin == text.size()) return result;
      const size_t after = next_character(text.bytes, begin);
      result.append(text.part(begin, after));
      begin = after;
    }
  }
  result.append(text.part(begin, text.size()));
  return result;
}

Text change_case(const Text& text, Case to) {
  Text result;
  bool inside_word = false;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = next_character(text.bytes, begin);
    const int32_t point = code_point(text.bytes, begin);
    if (point < 0) {
      result.append(text.part(begin, end));
    } else if (point == 0xdf && to != Case::lower && (to == Case::upper || !inside_word)) {
      // The one letter in common use whose capital is two.
      result.append(to == Case::upper ? "SS" : begin == 0 || to == Case::title ? "Ss" : "\u00df", text.mask[begin]);
      inside_word = true;
    } else {
      const bool upper =
          to == Case::upper || (to == Case::title && !inside_word) || (to == Case::capital && begin == 0);
      std::array<utf8proc_uint8_t, 4> buffer{};
      const auto length =
          utf8proc_encode_char(upper ? utf8proc_toupper(point) : utf8proc_tolower(point), buffer.data());
      result.append({reinterpret_cast<const char*>(buffer.data()), static_cast<size_t>(length)}, text.mask[begin]);
      const auto category = utf8proc_category(point);
      inside_word = category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
    }
    begin = end;
  }
  return result;
}

Text indent(const Text& text, const Text& indentation, bool first, bool blank) {
  Text result;
  size_t begin = 0;
  for (bool is_first = true;; is_first = false) {
    const size_t end = std::min(text.bytes.find('\n', begin), text.size());
    const bool wanted = is_first ? first : (blank || end > begin);
    if (wanted) result.append(indentation);
    const size_t after = std::min(end + 1, text.size());
    result.append(text.part(begin, after));
    if (end == text.size()) return result;
    begin = after;
  }
}

SliceRange slice_range(int64_t length, std::optional<int64_t> start, std::optional<int64_t> stop, int64_t step) {
  const int64_t lowest = step > 0 ? 0 : -1;
  const int64_t highest = step > 0 ? length : length - 1;
  const auto clip = [&](int64_t index) {
    if (index < 0) index = index < -length ? lowest : index + length;
    return std::clamp(index, lowest, highest);
  };
  const int64_t first = start ? clip(*start) : (step > 0 ? lowest : highest);
  const int64_t last = stop ? clip(*stop) : (step > 0 ? highest : lowest);
  const int64_t span = step > 0 ? last - first : first - last;
  if (span <= 0) return {first, 0};
  const uint64_t stride = step > 0 ? static_cast<uint64_t>(step) : uint64_t{0} - static_cast<uint64_t>(step);
  return {first, static_cast<int64_t>((static_cast<uint64_t>(span) - 1) / stride) + 1};
}

Text slice_text(const Text& text, std::optional<int64_t> start, std::optional<int64_t> stop, int64_t step) {
  std::vector<size_t> begins;
  for (size_t at = 0; at < text.size(); at = next_character(text.bytes, at)) begins.push_back(at);
  const auto length = static_cast<int64_t>(begins.size());
  begins.push_back(text.size());
  const SliceRange range = slice_range(length, start, stop, step);
  if (step == 1 && range.count > 0) {
    return text.part(begins[static_cast<size_t>(range.start)], begins[static_cast<size_t>(range.start + range.count)]);
  }
  Text result;
  for (int64_t i = 0, at = range.start; i < range.count; ++i) {
    result.append(text.part(begins[static_cast<size_t>(at)], begins[static_cast<size_t>(at) + 1]));
    if (i + 1 < range.count) at += step;
  }
  return result;
}

void append_quoted(Text& out, const Text& text) {
  const bool single = text.bytes.find('\'') != std::string::npos;
  const char quote = single && text.bytes.find('"') == std::string::npos ? '"' : '\'';
  out.append(std::string_view(&quote, 1));
  for (size_t i = 0; i < text.size(); ++i) {
    const char byte = text.bytes[i], mask = text.mask[i];
    const auto value = static_cast<unsigned char>(byte);
    static constexpr char digits[] = "0123456789abcdef";
    if (byte == '\n') {
      out.append("\\n", mask);
    } else if (byte == '\r') {
      out.append("\\r", mask);
    } else if (byte == '\t') {
      out.append("\\t", mask);
    } else if (byte == '\\' || byte == quote) {
      out.append(std::string{'\\', byte}, mask);
    } else if (value < 0x20 || value == 0x7f) {
      out.append(std::string{'\\', 'x', digits[value >> 4], digits[value & 15]}, mask);
    } else {
      out.append(std::string_view(&byte, 1), mask);
    }
  }
  out.append(std::string_view(&quote, 1));
}

void append_json_string(Text& out, const Text& text) {
  out.append("\"");
  for (size_t i = 0; i < text.size(); ++i) {
    const char byte = text.bytes[i], mask = text.mask[i];
    const auto value = static_cast<unsigned char>(byte);
    static constexpr char digits[] = "0123456789abcdef";
    static constexpr std::string_view plain = "\"\\\n\r\t\b\f", letters = "\"\\nrtbf";
    if (const size_t place = plain.find(byte); place != std::string_view::npos) {
      out.append(std::string{'\\', letters[place]}, mask);
    } else if (value < 0x20) {
      out.append(std::string{'\\', 'u', '0', '0', digits[value >> 4], digits[value & 15]}, mask);
    } else {
      out.append(std::string_view(&byte, 1), mask);
    }
  }
  out.append("\"");
}

Text escape_html(const Text& text) {
  static constexpr std::string_view plain = "&<>'\"";
  static constexpr std::string_view escaped[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
  Text out;
  for (size_t i = 0; i < text.size(); ++i) {
    const size_t place = plain.find(text.bytes[i]);
    out.append(place == std::string_view::npos ? std::string_view(text.bytes).substr(i, 1) : escaped[place],
               text.mask[i]);
  }
  return out;
}

std::string format_number(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number < 0 ? "-inf" : "inf";
  const double magnitude = std::abs(number);
  const bool plain = magnitude == 0 || (magnitude >= 1e-4 && magnitude < 1e16);
  std::array<char, 64> buffer{};
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), number,
                                 plain ? std::chars_format::fixed : std::chars_format::scientific);
  std::string text(buffer.data(), end.ptr);
  if (plain && text.find('.') == std::string::npos) text += ".0";
  return text;
}

}  // namespace cepe::text::jinja
