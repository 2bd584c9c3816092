// Character classes and normal forms (utf8proc), as Rust's standard library and Hugging Face's tokenizers define them.
#pragma once

#include <string>
#include <string_view>

namespace cepe::text {

bool is_whitespace(char32_t code);       // White_Space
bool is_numeric(char32_t code);          // Nd, Nl, No
bool is_word(char32_t code);             // \w: letters, marks, decimal and letter numbers, connectors
bool is_punctuation(char32_t code);      // ASCII punctuation or category P
bool is_mark(char32_t code);             // Mn, Mc, Me
bool is_nonspacing_mark(char32_t code);  // Mn
bool is_other(char32_t code);            // Cc, Cf, Cs, Co, Cn
bool is_chinese(char32_t code);          // the CJK ideograph blocks that BERT separates by spaces

// Full lower case of one character appended (U+0130 becomes two); no context such as the final sigma.
void append_lower(std::string& text, char32_t code);

enum class UnicodeForm { nfc, nfd, nfkc, nfkd };
// `text` is UTF-8. In time that grows with its length, whatever it holds.
std::string to_form(std::string_view text, UnicodeForm form);

}  // namespace cepe::text
