// Text of strangers (names in files, files' names) as it may stand on a terminal.
#pragma once

#include <string>
#include <string_view>

namespace cepe::base {

// Control characters (below U+0020, U+007F to U+009F) as \n, \t, \x1b: what is printed neither breaks a line or table
// nor steers a terminal. All else as it is.
std::string printable(std::string_view text);
// The same, but tabs stay, and ends of lines where the next one is indented by two spaces, as lists in messages are: a
// name that holds one begins no line that could pass for a message of its own.
std::string printable_lines(std::string_view text);

}  // namespace cepe::base
