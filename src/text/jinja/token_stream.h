// The tokens of a template with the parser's place in them, and its errors.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "text/jinja/lexer.h"

namespace cepe::text::jinja {

class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& look(size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  Token next() {
    const Token& token = look();
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  bool is(Token::Kind kind) const { return look().kind == kind; }
  bool is_symbol(std::string_view symbol) const { return is(Token::Kind::symbol) && look().text == symbol; }
  bool is_name(std::string_view name) const { return is(Token::Kind::name) && look().text == name; }
  bool skip_symbol(std::string_view symbol) {
    if (!is_symbol(symbol)) return false;
    next();
    return true;
  }
  bool skip_name(std::string_view name) {
    if (!is_name(name)) return false;
    next();
    return true;
  }
  void expect_symbol(std::string_view symbol) {
    if (!skip_symbol(symbol)) fail("expected '" + std::string(symbol) + "', found " + found());
  }
  void expect_name(std::string_view name) {
    if (!skip_name(name)) fail("expected '" + std::string(name) + "', found " + found());
  }
  std::string expect_any_name() {
    if (!is(Token::Kind::name)) fail("expected a name, found " + found());
    return next().text;
  }
  void expect(Token::Kind kind, std::string_view what) {
    if (!is(kind)) fail("expected " + std::string(what) + ", found " + found());
    next();
  }

  int line() const { return look().line; }
  [[noreturn]] void fail(const std::string& what) const { raise(base::ErrorCode::corrupt, line(), what); }
  [[noreturn]] void unsupported(const std::string& construct) const {
    raise(base::ErrorCode::unsupported, line(), construct + " is not supported");
  }
  [[noreturn]] static void raise(base::ErrorCode code, int line, const std::string& what) {
    throw base::Error(code, "chat template, line " + std::to_string(line) + ": " + what);
  }

 private:
  std::string found() const {
    switch (look().kind) {
      case Token::Kind::end:
        return "the end of the template";
      case Token::Kind::block_end:
        return "'%}'";
      case Token::Kind::variable_end:
        return "'}}'";
      case Token::Kind::string:
        return "a string";
      case Token::Kind::integer:
      case Token::Kind::number:
        return "a number";
      default:
        return "'" + look().text.substr(0, 40) + "'";
    }
  }

  std::vector<Token> tokens_;
  size_t at_ = 0;
};

}  // namespace cepe::text::jinja
