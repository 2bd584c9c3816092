// Template source -> tokens, with Jinja2's white-space rules as transformers sets them: trim_blocks, lstrip_blocks,
// the last newline of the source dropped, "-" and "+" at the delimiters obeyed.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cepe::text::jinja {

struct Token {
  enum class Kind {
    text,
    variable_begin,
    variable_end,
    block_begin,
    block_end,
    name,
    string,
    integer,
    number,
    symbol,
    end,
  } kind = Kind::end;
  std::string text;  // text, a name, a string's value, a symbol
  int64_t integer = 0;
  double number = 0;
  int line = 0;
};

// Ends with one token of kind `end`. Errors: corrupt, with the line.
std::vector<Token> tokenize(std::string_view source);

}  // namespace cepe::text::jinja
