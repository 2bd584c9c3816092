#include "text/jinja/lexer.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "base/error.h"

namespace cepe::text::jinja {
namespace {

constexpr size_t max_source = size_t{1} << 20;

bool is_ascii_space(char byte) { return (byte >= '\t' && byte <= '\r') || byte == ' '; }
bool is_digit(char byte) { return byte >= '0' && byte <= '9'; }
bool is_name(char byte) {
  return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || byte == '_' || is_digit(byte) ||
         static_cast<unsigned char>(byte) >= 0x80;
}

std::string unify_newlines(std::string_view source) {
  std::string out;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r' && i + 1 < source.size() && source[i + 1] == '\n') continue;
    out += source[i] == '\r' ? '\n' : source[i];
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(unify_newlines(source)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) next_piece();
    add(Token::Kind::end);
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(const std::string& what) {
    throw base::Error(base::ErrorCode::corrupt, "chat template, line " + std::to_string(line()) + ": " + what);
  }

  int line() {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<ptrdiff_t>(counted_),
                                         source_.begin() + static_cast<ptrdiff_t>(at_), '\n'));
    counted_ = at_;
    return line_;
  }

  Token& add(Token::Kind kind, std::string text = "") {
    tokens_.push_back({kind, std::move(text), 0, 0, line()});
    return tokens_.back();
  }

  bool starts(std::string_view wanted, size_t at) const { return source_.compare(at, wanted.size(), wanted) == 0; }
  char byte(size_t at) const { return at < source_.size() ? source_[at] : '\0'; }
  size_t skip_spaces(size_t at) const {
    while (at < source_.size() && is_ascii_space(source_[at])) ++at;
    return at;
  }

  // The plain text before a tag, stripped as the tag's sign and lstrip_blocks ask.
  void add_text(size_t begin, size_t end, char sign, bool strips_line) {
    std::string text = source_.substr(begin, end - begin);
    if (sign == '-') {
      while (!text.empty() && is_ascii_space(text.back())) text.pop_back();
    } else if (sign != '+' && strips_line) {
      const size_t newline = text.rfind('\n');
      const size_t line_start = newline == std::string::npos ? 0 : newline + 1;
      const bool blank = std::all_of(text.begin() + static_cast<ptrdiff_t>(line_start), text.end(), is_ascii_space);
      if (blank && (line_start > 0 || line_starting_)) text.resize(line_start);
    }
    if (!text.empty()) add(Token::Kind::text, std::move(text));
  }

  // Past the end of a tag whose closing delimiter stands at `at` (after its sign); honours the sign and trim_blocks.
  void leave_tag(size_t at, char sign, bool trims) {
    at_ = at + 2;
    if (sign == '-') {
      at_ = skip_spaces(at_);
    } else if (sign != '+' && trims && byte(at_) == '\n') {
      ++at_;
    }
    line_starting_ = source_[at_ - 1] == '\n';
  }

  char sign_at(size_t at) const { return byte(at) == '-' || byte(at) == '+' ? byte(at) : '\0'; }

  void next_piece() {
    size_t tag = at_;
    while (true) {
      tag = source_.find('{', tag);
      if (tag == std::string::npos) break;
      const char second = byte(tag + 1);
      if (second == '{' || second == '%' || second == '#') break;
      ++tag;
    }
    if (tag == std::string::npos) {
      add(Token::Kind::text, source_.substr(at_));
      at_ = source_.size();
      return;
    }
    const char kind = source_[tag + 1], sign = sign_at(tag + 2);
    add_text(at_, tag, sign, kind != '{');
    at_ = tag;
    line_starting_ = false;
    const size_t inside = tag + 2 + (sign ? 1 : 0);
    if (kind == '#') return comment(inside);
    if (kind == '%' && raw(inside)) return;
    add(kind == '%' ? Token::Kind::block_begin : Token::Kind::variable_begin);
    at_ = inside;
    inside_tag(kind == '%');
  }

  void comment(size_t inside) {
    const size_t end = source_.find("#}", inside);
    if (end == std::string::npos) fail("a comment '{#' that is never closed");
    leave_tag(end, end > inside ? sign_at(end - 1) : '\0', true);
  }

  // Takes {% raw %} ... {% endraw %} as text; false where the tag at hand is another.
  bool raw(size_t inside) {
    size_t at = skip_spaces(inside);
    if (!starts("raw", at)) return false;
    at = skip_spaces(at + 3);
    const char sign = byte(at) == '-' ? '-' : '\0';
    if (!starts("%}", at + (sign ? 1 : 0))) return false;
    leave_tag(at + (sign ? 1 : 0), sign, false);
    const size_t begin = at_;
    for (size_t tag = source_.find("{%", begin); tag != std::string::npos; tag = source_.find("{%", tag + 1)) {
      const char end_sign = sign_at(tag + 2);
      at = skip_spaces(tag + 2 + (end_sign ? 1 : 0));
      if (!starts("endraw", at)) continue;
      at = skip_spaces(at + 6);
      const char close_sign = sign_at(at);
      if (!starts("%}", at + (close_sign ? 1 : 0))) continue;
      add_text(begin, tag, end_sign, true);
      leave_tag(at + (close_sign ? 1 : 0), close_sign, true);
      return true;
    }
    fail("'raw' that is never closed by 'endraw'");
  }

  void inside_tag(bool block) {
    const std::string_view closing = block ? "%}" : "}}";
    std::string open;  // brackets that wait for their partner: a '}' of a dictionary ends no tag
    while (true) {
      at_ = skip_spaces(at_);
      if (at_ >= source_.size()) fail(block ? "'{%' that is never closed" : "'{{' that is never closed");
      if (open.empty()) {
        const char sign = byte(at_) == '-' || (block && byte(at_) == '+') ? byte(at_) : '\0';
        const size_t end = at_ + (sign ? 1 : 0);
        if (starts(closing, end)) {
          add(block ? Token::Kind::block_end : Token::Kind::variable_end);
          return leave_tag(end, sign, block);
        }
      }
      const char first = source_[at_];
      if (first == '\'' || first == '"') {
        string(first);
      } else if (is_digit(first)) {
        number();
      } else if (is_name(first)) {
        const size_t begin = at_;
        while (at_ < source_.size() && is_name(source_[at_])) ++at_;
        add(Token::Kind::name, source_.substr(begin, at_ - begin));
      } else {
        symbol(open);
      }
    }
  }

  void symbol(std::string& open) {
    static constexpr std::array<std::string_view, 6> pairs = {"==", "!=", "<=", ">=", "//", "**"};
    for (const std::string_view pair : pairs) {
      if (!starts(pair, at_)) continue;
      add(Token::Kind::symbol, std::string(pair));
      at_ += 2;
      return;
    }
    const char one = source_[at_];
    if (std::string_view("+-/*%~<>=.:|,;()[]{}").find(one) == std::string_view::npos) {
      fail(std::string("unexpected character '") + one + "'");
    }
    static constexpr std::string_view opening = "([{", ending = ")]}";
    if (opening.find(one) != std::string_view::npos) open += one;
    if (const size_t place = ending.find(one); place != std::string_view::npos) {
      if (open.empty() || open.back() != opening[place]) fail(std::string("'") + one + "' without its partner");
      open.pop_back();
    }
    add(Token::Kind::symbol, std::string(1, one));
    ++at_;
  }

  void number() {
    size_t end = at_;
    std::string digits;
    const auto take_digits = [&] {
      while (is_digit(byte(end)) || (byte(end) == '_' && is_digit(byte(end + 1)))) {
        if (byte(end) != '_') digits += byte(end);
        ++end;
      }
    };
    if (byte(at_) == '0' && (is_name(byte(at_ + 1)) && !is_digit(byte(at_ + 1)) && byte(at_ + 1) != '_' &&
                             byte(at_ + 1) != 'e' && byte(at_ + 1) != 'E')) {
      fail("numbers are decimal here");
    }
    take_digits();
    bool fraction = false;
    // After a name and a dot the digits are an index: "pair.0.1" holds no fraction.
    const bool index = !tokens_.empty() && tokens_.back().kind == Token::Kind::symbol && tokens_.back().text == ".";
    if (!index && byte(end) == '.' && is_digit(byte(end + 1))) {
      fraction = true;
      digits += byte(end++);
      take_digits();
    }
    const size_t sign = byte(end + 1) == '+' || byte(end + 1) == '-' ? 1 : 0;
    if (!index && (byte(end) == 'e' || byte(end) == 'E') && is_digit(byte(end + 1 + sign))) {
      fraction = true;
      digits += source_.substr(end, 1 + sign);
      end += 1 + sign;
      take_digits();
    }
    Token& token = add(fraction ? Token::Kind::number : Token::Kind::integer);
    const char* last = digits.data() + digits.size();
    const auto result = fraction ? std::from_chars(digits.data(), last, token.number)
                                 : std::from_chars(digits.data(), last, token.integer);
    if (result.ec != std::errc() || result.ptr != last) fail("the number " + digits.substr(0, 40) + " is out of range");
    at_ = end;
  }

  void string(char quote) {
    std::string value;
    size_t at = at_ + 1;
    while (byte(at) != quote || at >= source_.size()) {
      if (at >= source_.size()) fail("a string that is never closed");
      if (source_[at] == '\\') {
        at = escape(at + 1, value);
      } else {
        value += source_[at++];
      }
    }
    add(Token::Kind::string, std::move(value));
    at_ = at + 1;
  }

  // Appends what the escape after a backslash stands for; returns the position after it.
  size_t escape(size_t at, std::string& value) {
    static constexpr std::string_view letters = "nrtbfav\\'\"", plain = "\n\r\t\b\f\a\v\\'\"";
    const char letter = byte(at);
    if (at >= source_.size()) fail("a string that is never closed");
    if (const size_t place = letters.find(letter); place != std::string_view::npos) {
      value += plain[place];
      return at + 1;
    }
    if (letter == '\n') return at + 1;
    if (letter == 'x') return code_point(at + 1, 2, 16, value);
    if (letter == 'u') return code_point(at + 1, 4, 16, value);
    if (letter == 'U') return code_point(at + 1, 8, 16, value);
    if (letter >= '0' && letter <= '7') {
      size_t length = 1;
      while (length < 3 && byte(at + length) >= '0' && byte(at + length) <= '7') ++length;
      return code_point(at, length, 8, value);
    }
    value += '\\';
    return at;
  }

  size_t code_point(size_t at, size_t length, int radix, std::string& value) {
    uint32_t point = 0;
    const char* begin = source_.data() + std::min(at, source_.size());
    const char* end = source_.data() + std::min(at + length, source_.size());
    const auto result = std::from_chars(begin, end, point, radix);
    if (result.ec != std::errc() || result.ptr != source_.data() + at + length ||
        !utf8proc_codepoint_valid(static_cast<utf8proc_int32_t>(point))) {
      fail("an escape in a string that names no character");
    }
    std::array<utf8proc_uint8_t, 4> buffer{};
    const auto size = utf8proc_encode_char(static_cast<utf8proc_int32_t>(point), buffer.data());
    value.append(reinterpret_cast<const char*>(buffer.data()), static_cast<size_t>(size));
    return at + length;
  }

  std::string source_;
  size_t at_ = 0;
  size_t counted_ = 0;  // `line_` is the line of this position
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  if (source.size() > max_source) {
    throw base::Error(base::ErrorCode::unsupported, "chat template of " + std::to_string(source.size()) +
                                                        " bytes; at most " + std::to_string(max_source) + " are read");
  }
  return Lexer(source).run();
}

}  // namespace cepe::text::jinja
