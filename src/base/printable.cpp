#include "base/printable.h"

namespace cepe::base {
namespace {

std::string escape(unsigned char code) {
  static constexpr std::string_view digits = "0123456789abcdef";
  if (code == '\n') return "\\n";
  if (code == '\t') return "\\t";
  if (code == '\r') return "\\r";
  return {'\\', 'x', digits[code >> 4], digits[code & 15]};
}

// `keeps_lines`: tabs, and ends of lines before a line that is indented.
std::string escaped(std::string_view text, bool keeps_lines) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto code = static_cast<unsigned char>(text[i]);
    const auto next = i + 1 < text.size() ? static_cast<unsigned char>(text[i + 1]) : 0;
    const bool is_kept = keeps_lines && (code == '\t' || text.substr(i).starts_with("\n  "));
    if (code == 0xc2 && next >= 0x80 && next < 0xa0) {  // U+0080 to U+009F in UTF-8
      out += escape(next);
      ++i;
    } else if ((code < 0x20 || code == 0x7f) && !is_kept) {
      out += escape(code);
    } else {
      out += text[i];
    }
  }
  return out;
}

}  // namespace

std::string printable(std::string_view text) { return escaped(text, false); }
std::string printable_lines(std::string_view text) { return escaped(text, true); }

}  // namespace cepe::base
