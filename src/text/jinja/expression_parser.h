// Tokens -> expressions, with Jinja2's precedence.
#pragma once

#include "text/jinja/syntax.h"
#include "text/jinja/token_stream.h"

namespace cepe::text::jinja {

class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream& stream) : stream_(stream) {}

  ExpressionPointer expression(bool with_condition = true);
  // One expression, or several with commas: a tuple.
  ExpressionPointer tuple(bool with_condition = true);
  // `input` and the filters that follow it; without a first '|' where `first` is set. `input` may be null.
  ExpressionPointer filters(ExpressionPointer input, bool first);

 private:
  using Rule = ExpressionPointer (ExpressionParser::*)();
  ExpressionPointer either();
  ExpressionPointer both();
  ExpressionPointer negation();
  ExpressionPointer comparison();
  ExpressionPointer sum();
  ExpressionPointer concat();
  ExpressionPointer product();
  ExpressionPointer power();
  ExpressionPointer unary(bool with_filters = true);
  ExpressionPointer primary();
  ExpressionPointer literal();
  ExpressionPointer brackets();
  ExpressionPointer postfix(ExpressionPointer base);
  ExpressionPointer subscript(ExpressionPointer base);
  ExpressionPointer call(ExpressionPointer callee);
  ExpressionPointer test(ExpressionPointer subject);
  ExpressionPointer suffixes(ExpressionPointer base);
  ExpressionPointer binary(Rule operand, std::initializer_list<std::string_view> symbols);
  void arguments(Expression& owner);

  TokenStream& stream_;
  int depth_ = 0;
};

}  // namespace cepe::text::jinja
